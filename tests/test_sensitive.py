"""Questions that get a notice, and those like them that get none."""

import pytest

from core.demo.sensitive import subject

ASKED = {
    "Who is this?": "who",
    "who is in the photo": "who",
    "Who is this man?": "who",
    "Who are these people?": "who",
    "Could you tell me who that is": "who",
    "Who is the woman?": "who",
    "What is the man's name?": "who",
    "What is the name of the woman in red?": "who",
    "Is this person famous?": "who",
    "What race is the man?": "race",
    "What is the man's race?": "race",
    "What is the man’s race?": "race",
    "What ethnicity is the man?": "race",
    "What is the ethnicity of the woman?": "race",
    "What nationality are they?": "race",
    "What color is her skin?": "race",
    "Is the woman Asian?": "race",
    "What religion is he?": "religion",
    "Is she Muslim?": "religion",
    "Is the man sick?": "health",
    "Is the woman pregnant?": "health",
    "What disease does this person have?": "health",
    "Is he gay?": "sexual",
    "What is his sexual orientation?": "sexual",
    "What gender is the child?": "sexual",
    "Is the person male or female?": "sexual",
    "How old is the boy?": "age",
    "What age is she?": "age",
    "HOW OLD IS THIS MAN": "age",
    "Is this man a criminal?": "like",
    "Are these people rich?": "like",
}
HARMLESS = (
    "Who won the race?",
    "What kind of race is this?",
    "Who is winning the race?",
    "Who is flying the kite?",
    "Who is wearing glasses?",
    "Whose birthday is it?",
    "Who took this picture?",
    "How old is this picture?",
    "How old is the building?",
    "What color is the man's shirt?",
    "What is the man holding?",
    "What is the person doing?",
    "What color is the cat?",
    "What is the name of the bus company?",
    "What kind of Asian food is this?",
    "What language is the sign in?",
    "What animal is this?",
    "Is this a village or a city?",
    "What page is the book on?",
    "What colour is the badge behind the dog?",
    "What stage is the woman on?",
    "Is the food healthy?",
    "How old is the clock?",
    "What is the Indian food on the plate?",
)


@pytest.mark.parametrize("question", ASKED)
def test_questions_about_what_a_picture_cannot_tell(question):
    assert ASKED[question] in subject(question)


@pytest.mark.parametrize("question", HARMLESS)
def test_questions_about_anything_else(question):
    assert subject(question) == ""


def test_no_question_of_the_drawn_world_gets_a_notice():
    from core.data.emoji.questions import FAMILIES

    assert not [q.text for family in FAMILIES.values() for q in family.questions if subject(q.text)]
