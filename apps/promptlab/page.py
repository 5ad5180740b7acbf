"""The page of app.py: both tabs, and their events bound to a session."""

import os
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.promptlab import fragments
from apps.promptlab.open_lab import LabSpec
from apps.promptlab.own_names import own_names_only
from apps.promptlab.session import EACH, MB, SETS, STARTS, LabSession
from runtime.errors import InputError

OPENING, SCORING = "opening the model and the images", "scoring"  # what a visitor waits for
MOST_EACH = 100  # images of either label by the slider; more by name
SENTENCES = (  # the boxes of a set, in the order of `PromptSet`
    ("normal sentences", "one a line; {classname}: the object's words"),
    ("abnormal sentences", "one a line; {classname}: the object's words"),
)
ENSEMBLE = (
    ("normal states", "{}: the object's words"),
    ("abnormal states", "{}: the object's words"),
    ("templates", "{}: a state"),
)
LINES = 7
NAMED = ("all", "llm", "base")  # what --prompts may be beside a file
TEMPLATES = Path(__file__).parent / "templates"
STYLE, BEFORE = TEMPLATES / "lab.css", TEMPLATES / "before.css"
FONT = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]  # nothing is fetched
MONO = ["ui-monospace", "Consolas", "monospace"]
# Whatever a user does to a box is an edit, when no other follows soon: Gradio's own `input` event knows neither pasting
# nor the delete key, and its `change` comes too when the page fills the boxes, one by one.
TYPING = """
let waiting;
document.addEventListener("input", (event) => {
  if (!event.target.closest(".prompt-set")) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => document.querySelector("#edited").click(), 150);
});
"""


class Page:
    """Both tabs, and their events bound to the session; `blocks` is what Gradio serves."""

    def __init__(self, session: LabSession) -> None:
        import gradio as gr

        self.gr, self.session = gr, session
        with gr.Blocks(title="Prompt lab", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.HTML(fragments.heading(), elem_id="heading")
            self._choice()
            with gr.Tab("Prompt lab"):
                self._lab()
            with gr.Tab("One image"):
                self._one()
            self._bind()

    def _choice(self) -> None:
        gr, names = self.gr, self.session.objects
        checkpoints = self.session.checkpoints(names[0])
        with gr.Row(elem_id="choice"):
            self.obj = gr.Dropdown(names, value=names[0], label="object", elem_id="object", scale=1)
            self.ckpt = gr.Dropdown(checkpoints, value=checkpoints[0], label="checkpoint", elem_id="ckpt", scale=2)
        self.busy = gr.HTML(fragments.waiting(OPENING), elem_id="busy")  # above both tabs, from the page's first moment

    def _lab(self) -> None:
        gr = self.gr
        with gr.Row(elem_id="chosen"):
            self.each = gr.Slider(1, MOST_EACH, EACH, step=1, label="test images of either label", scale=2)
            self.order = gr.Radio(fragments.ORDERS, value=fragments.ORDERS[0], label="order", elem_id="order", scale=2)
            with gr.Column(scale=3), gr.Accordion("test images by name", open=False):
                self.images = gr.Dropdown([], multiselect=True, show_label=False, elem_id="images")
        self.chosen = gr.State([])  # what `images` shows: the browser may lag behind with a list behind a fold
        with gr.Row():
            self.sets = [self._boxes(name) for name in SETS]
        self.edited = gr.Button("edited", elem_id="edited")  # TYPING clicks it; it is not seen
        with gr.Row(elem_id="doing"):
            self.save = [gr.Button(f"save {name} as JSON", size="sm", elem_id=f"save-{name}") for name in SETS]
            self.compare = gr.Button("A as a diff for prompt.py", size="sm", elem_id="show-diff")
            self.copy = gr.Button("copy A to B", size="sm", elem_id="copy")
            self.starts = [gr.Button(f"B: {name} of prompt.py", size="sm", elem_id=f"B-{name}") for name in NAMED]
        self.saved = gr.File(label="prompt file, for --prompts", interactive=False, visible=False, elem_id="saved")
        self.patch = gr.Code(label="diff", language=None, interactive=False, visible=False, elem_id="diff")
        self.figures, self.said, self.table = (gr.HTML(elem_id=name) for name in ("figures", "said", "table"))
        self.ready = gr.State(False)  # whether the sets are in their boxes

    def _boxes(self, name: str) -> list:
        """The boxes of a set: sentences open, states and templates behind a fold."""
        gr = self.gr

        def box(label: str, info: str) -> object:
            title, name_of = f"{name}: {label}", f"{name}-{label.replace(' ', '-')}"
            sizes = {"lines": LINES, "max_lines": LINES, "min_width": 120}
            return gr.Textbox(label=title, info=info, value="", placeholder="none", elem_id=name_of, **sizes)

        with gr.Column(elem_classes="prompt-set"):
            with gr.Row():
                made = [box(*words) for words in SENTENCES]
            ensemble = f"{name}: states and templates, every state in every template"
            with gr.Accordion(ensemble, open=False, elem_id=f"{name}-ensemble"), gr.Row():
                made += [box(*words) for words in ENSEMBLE]
        return made

    def _one(self) -> None:
        gr = self.gr
        with gr.Row():
            self.upload = gr.File(label="an image: png, jpg, bmp, tif or webp", elem_id="upload", height=150, scale=2)
            self.words = gr.Radio(SETS, value=SETS[0], label="prompts of set", elem_id="words", scale=1)
        self.verdict = gr.HTML(elem_id="verdict")

    def _bind(self) -> None:
        """Every event: what comes in, who answers, where it goes."""
        gr, boxes = self.gr, [box for part in self.sets for box in part]
        here, seen = [self.obj, self.ckpt], [self.said, self.busy, self.figures, self.table]
        predict = {"fn": self.predict, "inputs": [*here, self.each, self.chosen, self.order, *boxes], "outputs": seen}
        chosen = [self.said, self.busy, self.images, self.chosen]
        quiet = {"show_progress": "hidden", "trigger_mode": "always_last"}

        def then_predict(event: object) -> None:
            event.success(**predict, show_progress="minimal")

        opened = [*chosen, self.ready, *boxes]
        then_predict(self.blocks.load(self.open, [*here, self.each], opened))
        picked = self.obj.input(self.pick, self.obj, [self.ckpt, self.busy])
        then_predict(picked.then(self.open, [*here, self.each], opened))
        for event in (self.ckpt.input, self.each.release):
            shown = event(lambda: fragments.waiting(OPENING), None, self.busy, show_progress="hidden")
            then_predict(shown.then(self.choose, [*here, self.each], chosen))
        self.edited.click(**predict, **quiet)
        then_predict(
            self.images.change(lambda images: images or [], self.images, self.chosen)
        )  # `input` knows no "remove all"
        self.order.input(**predict, **quiet)
        then_predict(self.copy.click(lambda *texts: texts, self.sets[0], self.sets[1]))
        for name, button in zip(NAMED, self.starts, strict=True):
            then_predict(button.click(self.fill, [*here, gr.State(name)], [self.said, *self.sets[1]]))
        for name, button, texts in zip(SETS, self.save, self.sets, strict=True):
            button.click(self.keep, [*here, gr.State(name), *texts], [self.said, self.saved])
        self.compare.click(self.differ, [*here, *self.sets[0]], [self.said, self.patch])
        judge = {"fn": self.judge, "inputs": [*here, self.upload, self.words, self.ready, *boxes]}
        given = gr.on([self.upload.change, self.words.input], self.given, self.upload, self.verdict, **quiet)
        given.then(**judge, outputs=self.verdict, show_progress="hidden")

    def _said(self, fault: InputError, others: int) -> tuple:
        """The fault as a message, and everything else left as it is."""
        return (fragments.message("fault", str(fault)), *[self.gr.skip()] * others)

    # What the events call: values of the inputs, to values of the outputs

    def pick(self, obj: str) -> tuple:
        """Another object: its checkpoints, and a word that it is being opened."""
        names = self.session.checkpoints(obj)
        return self.gr.Dropdown(names, value=names[0]), fragments.waiting(OPENING)

    def given(self, upload: str | None) -> str:
        """A word that an upload is being scored."""
        return fragments.waiting(SCORING) if upload else ""

    def open(self, obj: str, ckpt: str, each: int) -> tuple:
        """A message, the test images shown and noted, that the sets are there, and the texts that these start from."""
        try:
            lab = self.session.lab(obj, ckpt)
        except InputError as fault:
            return self._said(fault, 4 + 2 * len(self.sets[0]))
        texts = [text for start in STARTS.values() for text in self.session.start(lab, start)]
        return (*self.choose(obj, ckpt, each), True, *texts)

    def choose(self, obj: str, ckpt: str, each: int) -> tuple:
        """A message, and the test images with some of them chosen, shown and noted."""
        try:
            lab = self.session.lab(obj, ckpt)
        except InputError as fault:
            return self._said(fault, 3)
        names = self.session.chosen(lab, each)
        return "", fragments.waiting(SCORING), self.gr.Dropdown(list(self.session.names(lab)), value=names), names

    def fill(self, obj: str, ckpt: str, prompts: str) -> tuple:
        """A message, and the texts that --prompts would name."""
        try:
            return "", *self.session.start(self.session.lab(obj, ckpt), prompts)
        except InputError as fault:
            return self._said(fault, len(self.sets[1]))

    def predict(self, obj: str, ckpt: str, each: int, images: list[str], order: str, *texts: str) -> tuple:
        """A message, no word of waiting any more, figures and the table of images; a faulty set leaves those alone."""
        try:
            self.session.lab(obj, ckpt)
        except InputError as fault:
            return fragments.message("fault", str(fault)), "", "", ""
        try:
            answer = self.session.answer(obj, ckpt, images, order, texts, int(each))
        except InputError as fault:
            message, *others = self._said(fault, 2)
            return (message, "", *others)
        return answer.message, "", answer.figures, answer.images

    def keep(self, obj: str, ckpt: str, name: str, *texts: str) -> tuple:
        """A message, and a set's file to download."""
        try:
            path = self.session.saved(obj, ckpt, texts, name)
        except InputError as fault:
            return self._said(fault, 1)
        return "", self.gr.File(str(path), visible=True)

    def differ(self, obj: str, ckpt: str, *texts: str) -> tuple:
        """A message, and set A's edits as a diff."""
        try:
            return "", self.gr.Code(self.session.diff(obj, ckpt, texts), visible=True)
        except InputError as fault:
            return self._said(fault, 1)

    def judge(self, obj: str, ckpt: str, upload: str | None, words: str, ready: bool, *texts: str) -> str:
        """The verdict on what was uploaded; one that comes before the sets are in their boxes is by their start."""
        half = len(texts) // 2
        own = texts[:half] if words == SETS[0] else texts[half:]
        try:
            return self.session.judged(obj, ckpt, upload, own if ready else None, words)
        except InputError as fault:
            return fragments.message("fault", str(fault))


def serve(session: LabSession, host: str, port: int, wait: bool = True) -> Page:
    """Serve the page at `host` and `port` (0: any); `wait` until the user stops it. InputError for a port in use."""
    page = Page(session)
    theme = page.gr.themes.Default(font=FONT, font_mono=MONO, primary_hue="slate", radius_size="sm", spacing_size="sm")
    page.blocks.launch(
        server_name=host,
        server_port=_free(host, port),
        share=False,
        inbrowser=False,
        quiet=True,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=int(session.spec.upload_mb * MB),
        prevent_thread_lock=True,
        theme=theme,
        css_paths=[STYLE],
        head=f"<script>{TYPING}</script><style>{BEFORE.read_text()}</style>",
        app_kwargs={"middleware": own_names_only(host)},
    )
    print(f"page: {page.blocks.local_url}  (Ctrl-C ends it)", flush=True)
    if wait:
        page.blocks.block_thread()
    return page


def _free(host: str, port: int) -> int:
    """The port, if nobody listens there; 0: one that is free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as fault:
            raise InputError(f"no page at {host}:{port} ({fault.strerror}); choose another --port or --host") from fault
        return trial.getsockname()[1]


def serve_until_stopped(asked: Mapping[str, Any]) -> None:
    """Serve the page; what it receives and gives lies in a temporary folder that goes when it ends.

    asked: settings of `LabSpec` by name. Raises InputError for what is missing, and for a port in use.
    """
    spec = LabSpec.of(asked)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # however it is stopped, the folder goes
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            import gradio  # noqa: F401
        except ImportError as fault:
            raise InputError(f"the page needs {fault.name}: pip install -r requirements/app.txt") from fault
        session = LabSession(asked, Path(folder))
        session.check()
        serve(session, spec.host, spec.port)
