"""Token ids, compared with open_clip's own tokenizer on texts of every kind."""

import json
import random
import unicodedata
import warnings

import pytest
from helpers.goldens import GOLDEN, arrays
from open_clip.tokenizer import SimpleTokenizer

import CLIP
from CLIP import tokenizer
from CLIP.tokenizer import CONTEXT_LENGTH, END, START, VOCABULARY_SIZE, Tokenizer, clean

SCRIPTS = """\
A photo of the BRAIN
naïve café, façade, Ångström, Straße, ŒUVRE, İstanbul, ĳssel, ǅ, ſhort
Москва, снимок грудной клетки
Αθήνα ΟΔΥΣΣΕΥΣ ὀφθαλμός
תמונה של מוח
صورة للدماغ ١٢٣
मस्तिष्क की तस्वीर १२३
ภาพถ่ายสมอง
脑部磁共振图像，左额叶
網膜の断層画像ガギグ
ﾊﾝｶｸ ＦＵＬＬＷＩＤＴＨ １２３
뇌 자기공명영상
Ảnh chụp não bị tổn thương
თავის ტვინი ᲗᲐᲕᲘ
ուղեղի պատկեր եւ և
የአንጎል ምስል
ཀླད་པའི་པར་རིས།
ᎠᏂᏴᏫᏯ ꭰꮒ
𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟛𝟝 𐐀𐐨 𒀀
ﬁne ﬂow ﬀ ﷺ ½ ⅷ ² ₃ ㎏
e\u0301 a\u0308\u0323 o\u031b n\u0303 \u0301alone
""".splitlines()
HTML = """\
a &lt;b&gt; tag
fish &amp; chips
&amp;lt;twice&amp;gt;
&amp;amp;amp; three times
&#65;&#x42;&#128512;
&amp;#65;
&nbsp;&ensp;&zwj;&shy;
&eacute;&Auml;&szlig;&alpha;
&notanentity; &amp &lt &;
&#0; &#xD800; &#x110000; &#128;
&quot;quoted&quot; &apos;it&#39;s&apos;
&lt;start_of_text&gt;
""".splitlines()
EMOJI = """\
🧠 brain 🧠🧠
👩‍⚕️ doctor 👨🏽‍🔬 👨‍👩‍👧‍👦
🏳️‍🌈 🇩🇪🇯🇵 1️⃣ #️⃣ ©️ ™
❤️ ❤ ☺︎ ☠
""".splitlines()
CONTRACTIONS = """\
it's I'm you're they've we'll he'd don't
IT'S I'M YOU'RE THEY'VE WE'LL HE'D DON'T
'tis 's't're've'm'll'd '' ' 's
rock'n'roll o'clock ’s it’s don’t
'ſ it'ſ
""".splitlines()
NUMBERS = """\
0123456789
3.5 cm × 2,5 mm
1e-5 -7 +8 50% 1/2
x1y22z333
T1-weighted ADC_b1000 IDH1R132H
""".splitlines()
MOJIBAKE = [
    "schÃ¶n, cafÃ©, naÃ¯ve",
    "â€œquotedâ€\x9d and itâ€™s",
    "âœ” No problems",
    "l’humanitÃ©",
    "Ð\x9cÐ¾Ñ\x81ÐºÐ²Ð°",
    "Ã¢â‚¬Å“twiceÃ¢â‚¬Â",
    "\ufeffmark \ufffd gone",
]
SPACES = [
    "",
    " ",
    "\t\n\r\v\f ",
    "a\tb\nc\rd\ve\ff",
    "a\r\nb\n\n\nc",
    "  both ends  ",
    *(
        f"a{space}b{space}"
        for space in "\u00a0\u1680\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
    ),
]
CONTROLS = [
    *(f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0))),
    "\x1b[31mred\x1b[0m",
    "soft\u00adhyphen \u200djoined\u200c \u202eturned\u202c",
    "\ud800 lone \udfff",
    "\ufffe\uffff \U0010ffff \ue000",
]
SPECIALS = [
    START,
    END,
    f"{START}{END}",
    f"a {END} b",
    f"a{START}b",
    START.upper(),
    "<start_of_text",
    "< start_of_text >",
    "<|startoftext|><|endoftext|>",
    "a</w> </w>b",
    "!" * 30 + "?!...--==__",
    "[CLS] {classname} \\n %s",
]
LONG = [
    "x " * 200,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 8,
    "word " * 74 + "last",
    "word " * 75 + "last",
    "word " * 76 + "last",
    "漢字" * 300,
    "🧠" * 100,
    "a" * 3000,
]
WRITTEN = [
    *SCRIPTS,
    *HTML,
    *EMOJI,
    *CONTRACTIONS,
    *NUMBERS,
    *MOJIBAKE,
    *SPACES,
    *CONTROLS,
    *SPECIALS,
    *LONG,
]
BLOCKS = (
    *((0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x3FF), (0x400, 0x52F)),
    *((0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x21FF)),
    *((0x2460, 0x24FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFB00, 0xFB4F)),
    *((0xFF00, 0xFFEF), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0xE0020, 0xE007F)),
)


def drawn(many: int) -> list[str]:
    """Texts mixed at random of the written ones' pieces and of characters of all blocks."""
    rng = random.Random(7)
    pieces = [piece for text in WRITTEN if len(text) < 200 for piece in text.split(" ") if piece]
    texts = []
    for _ in range(many):
        parts = []
        for _ in range(rng.randrange(1, 12)):
            if rng.random() < 0.5:
                parts.append(rng.choice(pieces))
            else:
                low, high = rng.choice(BLOCKS)
                parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 9))))
        texts.append(rng.choice(["", " ", "  ", "\t", "\u3000"]).join(parts))
    return texts


TEXTS = WRITTEN + drawn(450)


@pytest.fixture(scope="module")
def peer() -> SimpleTokenizer:
    return SimpleTokenizer()


def test_the_texts_are_many_and_varied():
    assert len(set(TEXTS)) >= 500
    letters = {unicodedata.name(letter, "").split(" ")[0] for text in TEXTS for letter in text}
    assert len(letters) > 50  # scripts and kinds of symbol


@pytest.mark.filterwarnings("ignore:.* exceed")
def test_ids_equal_open_clips(peer):
    theirs, ours = peer(TEXTS), CLIP.tokenize(TEXTS)
    assert ours.dtype == theirs.dtype
    differ = [text for text, a, b in zip(TEXTS, ours, theirs, strict=True) if not a.equal(b)]
    assert not differ
    assert [tokenizer.default().encode(text) for text in TEXTS] == [peer.encode(text) for text in TEXTS]


@pytest.mark.filterwarnings("ignore:.* exceed")
def test_golden_ids():
    sentences = json.loads((GOLDEN / "sentences.json").read_text(encoding="utf-8"))
    assert (CLIP.tokenize(sentences).numpy() == arrays("text")["tokens"]).all()


def test_empty_is_start_and_end():
    row = CLIP.tokenize("")[0].tolist()
    assert row == [VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1] + [0] * (CONTEXT_LENGTH - 2)


def test_one_text_or_several_or_none():
    one, other = "a photo of a brain", "a liver"
    assert CLIP.tokenize(one).equal(CLIP.tokenize([one]))
    assert CLIP.tokenize([other, one])[1].equal(CLIP.tokenize(one)[0])
    assert CLIP.tokenize([]).shape == (0, CONTEXT_LENGTH)


def test_clean_by_hand():
    assert clean("  Multiple \t\n spaces ") == "multiple spaces"
    assert clean("&amp;lt;B&amp;gt; &AMP; &#65;") == "<b> & a"
    assert clean("CafÃ©") == "café"
    assert clean("line\u2028break\u00a0here") == "line break here"


def test_too_long_is_cut_with_its_end_kept_and_said_once():
    fits, over, far_over = ("word " * count for count in (75, 76, 500))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CLIP.tokenize(fits)[0, -1] == VOCABULARY_SIZE - 1
    with pytest.warns(UserWarning, match="2 of 3 prompts exceed 77 tokens") as caught:
        rows = CLIP.tokenize([fits, over, far_over])
    assert len(caught) == 1
    assert rows[1].equal(rows[0]) and rows[2].equal(rows[0])


def test_another_context_length(peer):
    with pytest.warns(UserWarning, match="exceed 8 tokens"):
        rows = CLIP.tokenize(["a", "one two three four five six seven"], 8)
    assert rows.equal(peer(["a", "one two three four five six seven"], 8))


def test_ids_do_not_depend_on_what_was_read_before():
    texts = ["hello hello", "hell o", "brainstem brain", "brain"]
    fresh = [Tokenizer().encode(text) for text in texts[:2]]
    shared = Tokenizer()
    assert [shared.encode(text) for text in reversed(texts)][::-1][:2] == fresh
