"""What a release keeps of its known questions, and how near to them a question must be to be called known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.backbones.questions import beside, question_part
from core.data.known_questions import FALSE_ALARMS, KnownQuestion, fit_answers, nearness
from core.data.phrasings import Phrasings
from core.data.tasks import Task
from core.release.checkpoint import save_model
from core.release.manifest import KNOWN
from train.pipeline.asked import RULES, other_words
from train.pipeline.run import Run


def save_known(run: Run, known: Sequence[Task]) -> None:
    """Write what a release keeps of its known questions: task embeddings, and the regression from the questions, in all
    forms that training uses, to their answers."""
    question = run.store.questions([task.question for task in known], run.questions)
    e = beside(question, run.store.candidates([task.answers for task in known], run.questions))
    forms = known_in_other_words(run, known)
    answers = [KnownQuestion(task.question, task.answers) for task in known]
    mean, fitted = fit_answers(answers, torch.cat([question[:, None], forms], dim=1))
    save_model(run.output / KNOWN, {"e": e, "mean": mean, "map": fitted}, kind="questions", config={})


def known_in_other_words(run: Run, known: Sequence[Task]) -> Tensor:
    """`in_other_words` of tasks, split by split: lists that training embeds too, so that this is done once."""
    splits = {task.split: [other.question for other in known if other.split == task.split] for task in known}
    forms = {split: iter(in_other_words(run, questions)) for split, questions in splits.items()}
    return torch.stack([next(forms[task.split]) for task in known])


def in_other_words(run: Run, questions: Sequence[str], synonyms: bool = True) -> Tensor:
    """Embeddings (T, K, Q) of questions in the other words that training uses; with or without synonyms for nouns."""
    phrasings = Phrasings.read(RULES)
    rules = {name: rule for name, rule in phrasings.rules.items() if synonyms or name != "synonyms"}
    forms = other_words(questions, Phrasings(rules, phrasings.opposites))
    found = run.store.questions([form for own in forms for form in own], run.questions)
    return found.unflatten(0, (len(questions), -1))


def question_threshold(run: Run) -> float:
    """The nearness to training questions that 98% of the validation questions reach, as they are and in the forms that
    training uses: below it, a question is called strange. Forms with a synonym for every noun are left out: they lie
    so far from any known question that hardly anything would be strange."""
    forms = in_other_words(run, [task.question for task in run.val.tasks], synonyms=False)
    own = lambda tasks: question_part(tasks.question_features, run.questions)
    asked = torch.cat([own(run.val), forms.flatten(0, 1)])
    near = nearness(run.questions.meaning(asked), run.questions.meaning(own(run.train)))
    return round(float(near.quantile(FALSE_ALARMS)), 4)
