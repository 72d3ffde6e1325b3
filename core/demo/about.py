"""The About tab: the method in one picture, data, licences, bias, the interface for programs, how to cite."""

from __future__ import annotations

from core.demo.world import World

PICTURE = """<div class="qa-scroll"><svg class="qa-method" viewBox="0 0 900 318" role="img" aria-label="A question is embedded by CLIP's text tower. HyperLDM denoises a latent for it, or HyperCLIP guides one. A decoder turns the latent into the weights of a small adapter. CLIP's image tower embeds a picture, the adapter moves the embedding, and the nearest candidate answer wins.">
<defs><marker id="qa-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>
<text x="20" y="24" class="lane">from words to weights</text>
<g class="io"><rect x="20" y="40" width="168" height="70" rx="12"/><text x="104" y="70">“What colour is the</text><text x="104" y="90">badge behind the dog?”</text></g>
<g class="frozen"><rect x="226" y="40" width="112" height="70" rx="12"/><text x="282" y="70">CLIP</text><text x="282" y="90">text tower</text></g>
<g class="gen"><rect x="396" y="28" width="204" height="94" rx="12"/><text x="498" y="54" class="strong">HyperLDM</text><text x="498" y="74">noise z_T → latent z_0,</text><text x="498" y="92">guidance strength gamma</text><text x="498" y="111" class="small">or HyperCLIP: gradient steps</text></g>
<g class="gen"><rect x="652" y="40" width="112" height="70" rx="12"/><text x="708" y="70" class="strong">decoder</text><text x="708" y="90">HVAE or HNet</text></g>
<g class="out"><rect x="800" y="48" width="80" height="54" rx="12"/><text x="840" y="80" class="strong">weights</text></g>
<path class="flow" d="M188 75H224"/><path class="flow" d="M338 75H394"/><text x="366" y="66" class="var">e</text><path class="flow" d="M600 75H650"/><text x="625" y="66" class="var">z</text><path class="flow" d="M764 75H798"/><text x="781" y="66" class="var">w</text>
<text x="20" y="186" class="lane">from a picture to an answer</text>
<g class="io"><rect x="20" y="206" width="72" height="72" rx="10"/><rect x="27" y="213" width="58" height="58" rx="3" class="scene"/><path d="M56 218l6.5 15 16 1.5-12 11 3.5 16-14-8-14 8 3.5-16-12-11 16-1.500z" class="badge"/><circle cx="56" cy="243" r="9" class="thing"/></g>
<g class="frozen"><rect x="226" y="207" width="112" height="70" rx="12"/><text x="282" y="237">CLIP</text><text x="282" y="257">image tower</text></g>
<g class="gen"><rect x="396" y="196" width="204" height="92" rx="12"/><text x="498" y="228" class="strong">CLIP-Adapter</text><text x="498" y="249">x + W2 relu(W1 x + b1) + b2</text><text x="498" y="270" class="small">two layers, generated</text></g>
<g class="io"><rect x="700" y="196" width="180" height="92" rx="12"/><text x="790" y="222" class="strong">nearest answer</text><text x="790" y="243">red · blue · yellow ...</text><text x="790" y="266" class="small">through the text tower</text></g>
<path class="flow" d="M92 242H224"/><path class="flow" d="M338 242H394"/><text x="366" y="233" class="var">x</text><path class="flow" d="M600 242H698"/><path class="flow" d="M840 102V150H498V194"/>
<text x="20" y="310" class="small legend">grey: frozen · violet: learned or generated · learned from adapters that were fine-tuned on the training questions</text>
</svg></div>"""

_CITATION = """@article{nava2023metalearning,
  title   = {Meta-Learning via Classifier(-free) Diffusion Guidance},
  author  = {Nava, Elvis and Kobayashi, Seijin and Yin, Yifei and Katzschmann, Robert K. and Grewe, Benjamin F.},
  journal = {Transactions on Machine Learning Research},
  year    = {2023}
}"""

_SNIPPET = """from gradio_client import Client, handle_file

client = Client("{address}")
question = "{question}"
answers = client.predict(question, api_name="/suggest_answers")
print(answers)
for record in client.predict(question, answers, [handle_file("picture.png")], api_name="/classify"):
    print(record["answer"], record["probability"])
print(client.predict(question, api_name="/generate"))  # the adapter, a safetensors file"""

_TEXT = """A question is embedded by CLIP's text tower (*e*). A diffusion model that lives in the latent space of adapters
(**HyperLDM**) denoises a latent *z* for it, pushed towards the question by classifier-free guidance of strength gamma;
**HyperCLIP guidance** instead takes gradient steps on a learned similarity between weights and questions. A decoder turns
*z* into the weights *w* of a CLIP-Adapter, which moves CLIP's image embedding until the right answer is the nearest one.
**Cond. Multitask**, the strongest baseline, maps *e* to *w* directly; **plain CLIP** has no adapter. Nothing here is
trained on your question or your pictures; on the Refine tab you can change that.

**Data.** {summary} {credit}

**Licences.** Code: Apache-2.0. {credit}

**Bias.** {bias} The paper's own note (Appendix A.4): the methods are general, and what they are applied to may raise issues
of gender and racial bias. Meta-VQA is made of VQA v2 and inherits its biases: answers to the same question are distributed
differently when the subject is a man or a woman, and some questions and answers express stereotypes. Do not use such
adapters to decide anything about people.

**How the page judges what is unfamiliar.** {novelty}

**Limits.** Two requests are worked on at a time and up to {queue} wait; at most {pictures} pictures a request and {size} a
file. The same question, settings and seed give the same answer. Pictures and questions are not kept.
"""

_NOVELTY_DRAWN = """A question is unfamiliar if it has a word that no known question or answer has, or if its embedding is
farther from the nearest known questions than 98% of those are from each other: 2% of the benchmark's test questions are,
and 96% of the questions people ask about photographs. A picture is unfamiliar if its distribution of differences between
neighbouring pixels is farther from that of drawn scenes than 98% of left-out scenes are."""

_NOVELTY_OTHER = """A question is unfamiliar if it has a word that no known question or answer has, or if its embedding is
farther from the nearest known questions than 98% of those are from each other. Pictures are not judged: this release
holds nothing to compare them with."""


def text(world: World, *, queue: int, pictures: int, size: str) -> str:
    """What there is to know, in Markdown."""
    return _TEXT.format(
        summary=world.summary,
        credit=world.credit,
        bias=world.bias,
        novelty=_NOVELTY_DRAWN if world.drawn else _NOVELTY_OTHER,
        queue=queue,
        pictures=pictures,
        size=size,
    )


def snippet(address: str, question: str) -> str:
    """How a program asks, in Python; it reads `picture.png`."""
    return _SNIPPET.format(address=address, question=question)


def citation() -> str:
    """BibTeX of the paper."""
    return _CITATION
