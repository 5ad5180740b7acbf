"""The memory bank's own search beside faiss's exact one: the same answers, which is faster.

pip install faiss-cpu && python -m benchmarks.bank_search
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F

from runtime.errors import InputError, exit_code
from scoring.memory_bank import BankLimit, MemoryBank

WIDTH, PATCHES, REPEATS = 768, 289, 9
SIZES = (12_760, 100_000)


def main() -> None:
    """Median milliseconds of one tap's search for one image, both in turns."""
    try:
        import faiss
    except ModuleNotFoundError as fault:
        raise InputError("faiss is not installed; pip install faiss-cpu") from fault
    torch.manual_seed(0)
    queries = F.normalize(torch.randn(1, 1 + PATCHES, WIDTH), dim=-1)
    for count in SIZES:
        bank = MemoryBank.build([([torch.randn(1, count, WIDTH)], 0)], 1, BankLimit(), 0)
        index = faiss.IndexFlatIP(WIDTH)
        index.add(bank.levels[0].numpy())
        taken = {"ours": [], "faiss": []}
        for _ in range(REPEATS):
            started = time.perf_counter()
            ours = bank.distance(0, queries)
            taken["ours"].append(time.perf_counter() - started)
            started = time.perf_counter()
            theirs = 1 - index.search(queries[0, 1:].numpy(), 1)[0][:, 0]
            taken["faiss"].append(time.perf_counter() - started)
        apart = (ours[0] - torch.from_numpy(theirs)).abs().max().item()
        medians = {name: round(1000 * statistics.median(seconds), 1) for name, seconds in taken.items()}
        print(f"{count:,} tokens: {medians} ms, largest difference {apart:.1e}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
