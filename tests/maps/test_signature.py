"""The grammar of arrow signatures."""

from __future__ import annotations

import pytest

from modelsurgeon.architectures import registry
from modelsurgeon.errors import ArchitectureError
from modelsurgeon.maps.signature import Atom, Product, parse
from support.dimensions import FORMS, SIZES

# --- grammar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORMS)
def test_a_signature_gives_its_dimensions_in_stored_order(text):
    dimensions, shape = FORMS[text]
    assert list(parse(text).dimensions) == dimensions
    assert parse(text).shape(SIZES) == shape


def test_a_gain_normalises_what_stands_left_of_its_arrow():
    assert parse("stream => hidden").normalises == Atom("stream")
    assert parse("prehead => heads head~").normalises == Atom("prehead")
    assert parse("(preheads prehead) => (heads head)").normalises == Product((Atom("preheads"), Atom("prehead")))
    assert parse("mlp <- hidden").normalises is None


def test_a_gain_writes_as_many_axes_as_it_normalises_and_its_rows_are_none_of_them():
    assert parse("stream => hidden").gains == ("hidden",)
    assert parse("prehead => heads head~").gains == ("head",)
    assert parse("(preheads prehead) => (heads head)").gains == ("heads", "head")


@pytest.mark.parametrize("text", ["mlp <- hidden", "hidden -> mlp"])
def test_a_bias_has_what_its_matrix_writes(text):
    assert parse(text).bias.dimensions == ((Atom("mlp"), "writers"),)
    assert parse(text).bias.shape(SIZES) == (7,)


@pytest.mark.parametrize("text", ["stream => hidden", "prehead => heads head~", "(preheads prehead) => (heads head)"])
def test_a_norms_bias_is_no_gain(text):
    assert parse(text).bias.normalises is None
    assert parse(text).bias.dimensions == parse(text).dimensions


def test_a_signature_names_its_axes():
    assert parse("(heads (head~ + head + value)) <- hidden").axes == ("heads", "head", "head", "value", "hidden")
    assert set(parse("stream => hidden").axes) == {"stream", "hidden"}
    assert parse("3 <- hidden").axes == ("hidden",)
    assert parse("kv[heads head + kv value] <-").axes == ("kv", "heads", "head", "kv", "value")
    assert parse("prehead => heads head~").axes == ("heads", "head", "prehead")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("mlp hidden", "no arrow"),
        ("", "no arrow"),
        ("mlp <- hid-den", "cannot read '-den'"),
        ("mlp <- hidden?", r"cannot read '\?'"),
        ("(mlp <- hidden", "a bracket that is not closed"),
        ("mlp <- (heads head", "a bracket that is not closed"),
        ("mlp) <- hidden", r"a stray '\)'"),
        ("mlp + mlp <- hidden", r"a stray '\+'"),
        ("() <- hidden", r"nothing before '\)'"),
        ("(heads + ) <- hidden", r"nothing before '\)'"),
        ("(+ heads) <- hidden", r"nothing before '\+'"),
        ("mlp <- hidden <- heads", "signature"),
        ("a -> b -> c", "signature"),
        ("a => b => c", "signature"),
        ("kv[heads head <- hidden", "a bracket that is not closed"),
        ("kv[heads head) <- hidden", r"a stray '\)'"),
        ("(heads head] <- hidden", r"a stray '\]'"),
        ("kv[] <- hidden", r"nothing before '\]'"),
        ("kv [heads] <- hidden", r"cannot read '\[heads\]'"),
        ("2[heads] <- hidden", r"cannot read '\[heads\]'"),
        ("~head <- hidden", "cannot read '~head'"),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused_with_its_text_and_the_place(text, place):
    with pytest.raises(ArchitectureError, match=place) as raised:
        parse(text)
    assert f"signature {text!r}: " in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("=> hidden", "a norm reads one axis, or one product of axes"),
        ("stream =>", "a norm reads one axis, or one product of axes"),
        ("stream hidden => hidden", "a norm reads one axis, or one product of axes"),
        ("(stream + hidden) => hidden", "a norm reads one axis, or one product of axes"),
        ("(heads (head + value)) => (heads head)", "a norm reads one axis, or one product of axes"),
        ("kv[heads] => heads", "a norm reads one axis, or one product of axes"),
        ("stream => (heads head)", "a norm writes as many axes as it reads"),
        ("(heads head) => hidden", "a norm writes as many axes as it reads"),
        ("(heads head) => heads head", "a norm writes as many axes as it reads"),
        ("stream => (hidden + hidden)", "a norm writes as many axes as it reads"),
    ],
)
def test_a_gain_has_as_many_axes_on_either_side(text, words):
    with pytest.raises(ArchitectureError, match=words):
        parse(text)


@pytest.mark.parametrize("model_type", registry.known())
def test_every_signature_of_a_table_reads_back_from_its_text(model_type):
    for text in registry.find(model_type).tensors.values():
        assert parse(text).text == text


# --- growth ----------------------------------------------------------------------------------------------------------
