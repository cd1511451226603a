"""Tokens: only hashes are kept, wrong secrets find nothing."""

import pytest

from fallow.hub.core.tokens import TokenBook
from fallow.model.errors import NotFound


def test_a_secret_finds_its_token_and_no_other():
    book = TokenBook()
    token, secret = book.make("user", "ada")
    assert book.authenticate(secret) == token
    assert book.authenticate(secret + "x") is None
    assert book.authenticate("") is None


def test_the_secret_is_nowhere_in_the_book():
    book = TokenBook()
    token, secret = book.make("admin", "root")
    assert secret not in repr(token)
    assert secret not in repr(book.all())


def test_revoked_tokens_are_refused():
    book = TokenBook()
    token, secret = book.make("user", "ada")
    assert book.revoke(token.id) == token
    assert book.authenticate(secret) is None
    with pytest.raises(NotFound, match="fallow token list"):
        book.revoke(token.id)
