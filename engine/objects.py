"""The objects that a run is on."""

import argparse

import dataset
from dataset import demo
from runtime import distributed
from runtime.errors import InputError


def objects(args: argparse.Namespace, *, all_medical: bool = False) -> list[str]:
    """The objects that --obj names, all the classes of "mvtec" and the like; --demo makes their images first.

    all_medical: the demo's other medical objects are wanted too (zero-shot training).
    Raises InputError for an object that the demo does not have.
    """
    names = dataset.expand(args.obj)
    if not args.demo:
        return names
    made = [name for name in names if name in demo.OBJECTS]
    if not made:
        raise InputError(f"--obj {args.obj} is not in the demo, which has: {', '.join(demo.OBJECTS)}")
    others = [name for name, made_of in demo.OBJECTS.items() if made_of.layout == "medical"] if all_medical else []
    with distributed.main_first():
        demo.ensure(args.data_path, names=dict.fromkeys([*made, *others]))
    return made
