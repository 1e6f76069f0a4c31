"""Tokens: what a client needs to be let in, as one line of text."""

from __future__ import annotations

import os
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.address import Address, AddressError
from shared.keys import LOCAL_TOKEN, PREFIX, Token, TokenError, destination, local_token

TOKEN = Token("tcp://render.example:47847", b"s" * 32, b"p" * 32, b"\x00" * 32)


def test_a_token_is_one_word_that_can_be_pasted_anywhere():
    text = str(TOKEN)
    assert text.replace("-", "").replace("_", "").isalnum() and len(text) < 200
    assert destination(f"  {text[:50]}\n {text[50:]}\n") == (TOKEN and destination(text)[0], TOKEN)
    lines = "\n".join(textwrap.wrap(text, 60))
    for pasted in (f'"{text}"', f"<{text}>.", f"\ufeff{text}", f"{text[:40]}\u200b{text[40:]}\r\n"):
        assert destination(pasted)[1] == TOKEN
    for pasted in (f"Token: {text}", textwrap.indent(lines, "> ")):
        assert destination(pasted)[1] == TOKEN
    assert "secret" not in repr(TOKEN) and str(TOKEN) not in repr(TOKEN)


@given(st.integers(len(PREFIX), len(str(TOKEN)) - 1), st.sampled_from("Ax_- é"))
def test_a_token_that_was_changed_on_the_way_is_told(place, letter):
    text = str(TOKEN)
    for damaged in (text[:place], text[:place] + letter + text[place + 1 :]):
        if "".join(damaged.split()) != text:
            with pytest.raises(TokenError, match="not whole; copy all of the line"):
                Token.parse(damaged)


def test_a_sentence_on_a_token_shows_nothing_secret_of_it():
    text = str(TOKEN)
    for damaged in (text.replace("-", "\u2013"), text.upper(), text[1:], text + text, f"tcp://{text}"):
        with pytest.raises((TokenError, AddressError)) as error:
            destination(damaged)
        assert len(str(error.value)) < 120 and "\n" not in str(error.value)


def test_what_names_no_server():
    named = Address.parse("tcp://poseanything-server.example:1")
    assert destination(str(named)) == (named, None), "a name may begin as a token does"
    with pytest.raises(TokenError, match="for its own computer alone"):
        destination(str(Token("", b"s" * 32, b"p" * 32, b"k" * 32)))
    with pytest.raises(TokenError, match="an address that is none"):
        destination(str(Token("http://here", b"s" * 32, b"p" * 32, b"k" * 32)))
    with pytest.raises(AddressError):
        destination("here")
    with pytest.raises(TokenError, match="begins with"):
        Token.parse("tcp://127.0.0.1:1")


def test_this_computers_token_must_be_its_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_KEYS", str(tmp_path))
    assert local_token() is None
    (tmp_path / LOCAL_TOKEN).write_text(f"{TOKEN}\n")
    (tmp_path / LOCAL_TOKEN).chmod(0o600)
    assert local_token() == TOKEN
    if sys.platform != "win32" and os.getuid() >= 0:
        (tmp_path / LOCAL_TOKEN).chmod(0o640)
        with pytest.raises(TokenError, match="can be read by others"):
            local_token()
    (tmp_path / LOCAL_TOKEN).chmod(0o600)
    (tmp_path / LOCAL_TOKEN).write_text("\x00")
    with pytest.raises(TokenError, match=f"{LOCAL_TOKEN} is damaged"):
        local_token()
