"""The About tab: the method in one picture, data, licences, bias, the interface for programs, how to cite."""

from __future__ import annotations

import json
import math

from markupsafe import Markup

from ...classifier import MAX_ANSWER, MAX_ANSWERS
from .. import limits
from ..world import World
from .templates import escape_markdown, render, tenths

_CITATION = """@article{nava2023metalearning,
  title   = {Meta-Learning via Classifier(-free) Diffusion Guidance},
  author  = {Nava, Elvis and Kobayashi, Seijin and Yin, Yifei and Katzschmann, Robert K. and Grewe, Benjamin F.},
  journal = {Transactions on Machine Learning Research},
  year    = {2023}
}"""

_SNIPPET = """from gradio_client import Client, handle_file

client = Client({address})
question = {question}
answers = client.predict(question{world}, api_name="/suggest_answers")
print(answers)
pictures = [handle_file("picture.png")]
for record in client.predict(question, answers, pictures{world}, api_name="/classify"):
    print(record["answer"], record["probability"])
print(client.predict(question{world}, api_name="/generate"))  # the adapter, a safetensors file"""

# Runs in the browser: what the page is called there is known nowhere else.
ADDRESS_JS = """code => code.replace(/Client\\(".*"\\)/,
  () => `Client(${JSON.stringify(location.origin + location.pathname.replace(/\\/$/, ""))})`)"""
PLACEHOLDER = "THE ADDRESS OF THIS PAGE"

_TEXT = """A question is embedded by {encoder} (*e*). A diffusion model that lives in the latent space of
adapters (**HyperLDM**) denoises a latent *z* for it, pushed towards the question by classifier-free guidance of
strength gamma; **HyperCLIP guidance** instead takes gradient steps on a learned similarity between weights and
questions. A decoder turns *z* into the weights *w* of a CLIP-Adapter, which moves the picture's embedding until the
right answer is the nearest one. **Cond. Multitask**, a baseline, maps *e* to *w* directly; **plain CLIP** has no
adapter. Nothing here is trained on your question or your pictures; on the Refine tab you can change
that.

**Data.** {summary} {credit}

**Licences.** Code: Apache-2.0. Data: as above.{trunk}

**Bias.** {bias} The paper's own note (Appendix A.4): the methods are general, and what they are applied to may
raise issues of gender and racial bias. Meta-VQA is made of VQA v2 and inherits its biases: answers to the same
question are distributed differently when the subject is a man or a woman, and some questions and answers express
stereotypes. Do not use such adapters to decide anything about people.

**How the page judges what is unfamiliar.** {novelty}{calibration}

**Limits.** {limits.WORKERS} requests are worked on at a time and up to {limits.QUEUE} wait; at most
{limits.MAX_PICTURES} pictures a request, of {MAX_FILE} MB and {MAX_PIXELS} megapixels each and {MAX_TOTAL_PIXELS}
megapixels in all, {answers} candidate answers of {characters} characters, and a question of
{limits.MAX_QUESTION} characters. Within {minutes} minutes a visitor may upload {limits.VISITOR_FILES} files of
{VISITOR_BYTES} MB, all visitors {SERVER_BYTES} MB. The same question, settings and seed give the same answer.

**What is kept.** Uploads and generated files are deleted after {minutes} minutes, {longest} at most, or when the server
stops. The latest questions, answers and scores of {limits.VISITS} visits stay in the server's memory until other
visits take their place or it stops; nothing of them is written to its disk."""

_MILLIONS = ("MAX_FILE", "MAX_PIXELS", "MAX_TOTAL_PIXELS", "VISITOR_BYTES", "SERVER_BYTES")

_NOVELTY = """A question is unfamiliar if its meaning, as the sentence encoder has it, is farther from the
nearest known questions than that of 98% of the validation questions, in many wordings. {pictures}"""

_PICTURES_JUDGED = """A picture is unfamiliar if its distribution of differences between neighbouring pixels is
farther from that of {known} than 98% of those left out are. It is then made in another way (a photograph, a drawing, a
screenshot), whatever it shows."""

_PICTURES_NOT_JUDGED = "Pictures are not judged: this release holds nothing to compare them with."

_CALIBRATION = """

**Percentages.** Those of generated adapters are calibrated on validation questions, those of plain CLIP are its own."""


_NONE = """

**None of these.** Where a generated adapter gives every answer less than {least}, a threshold that validation
questions chose, none is claimed: the right one may be missing from the candidates, or the picture from what the models
know. Plain CLIP is not judged so{exempt}."""

_TRUNKS = {"tf_efficientnet_lite2": "EfficientNet-Lite2, Apache-2.0"}  # by timm's name


def picture(drawn: bool = True) -> Markup:
    """The method in one picture; what is asked about is a drawn scene, or a photograph."""
    return render("method_picture.html", drawn=drawn)


def text(
    world: World,
    *,
    encoder: str,
    calibrated: bool = False,
    least: float | None = None,
    judged: bool = False,
    trunk: str | None = None,
) -> str:
    """What there is to know, in Markdown. `encoder`: what embeds questions, as plain text; `calibrated`: the release
    holds scales that validation questions chose; `least`: the probability of an answer that is claimed, if one was
    chosen; `judged`: the release can tell strange pictures; `trunk`: timm's name of the public network that its image
    encoder was made from."""
    known = "drawn scenes" if world.drawn else "the pictures that the models learned from"
    judgement = _PICTURES_JUDGED.format(known=known) if judged else _PICTURES_NOT_JUDGED
    exempt = ", nor are scenes drawn here" if world.drawn else ""
    none = "" if least is None else _NONE.format(least=tenths(least, math.ceil), exempt=exempt)
    return _TEXT.format(
        summary=world.summary,
        credit=world.credit,
        encoder=escape_markdown(encoder),
        bias=world.bias,
        novelty=_NOVELTY.format(pictures=judgement),
        calibration=(_CALIBRATION if calibrated else "") + none,
        trunk=f" Image encoder: made from {_TRUNKS[trunk]}." if trunk in _TRUNKS else "",
        limits=limits,
        answers=MAX_ANSWERS,
        characters=MAX_ANSWER,
        minutes=limits.KEPT // 60,
        longest=(limits.KEPT + limits.SWEPT) // 60,
        **{name: limits.mega(getattr(limits, name)) for name in _MILLIONS},
    )


def snippet(address: str, question: str, world: str = "") -> str:
    """How a program asks, in Python; it reads `picture.png`. `world`: the key of one of several."""
    # A text of JSON is one of Python, too, whatever quotes are in it.
    quoted = lambda text: json.dumps(text, ensure_ascii=False)
    chosen = f", world={quoted(world)}" if world else ""
    return _SNIPPET.format(address=quoted(address), question=quoted(question), world=chosen)


def citation() -> str:
    """BibTeX of the paper."""
    return _CITATION
