"""The chooser and the index of operators."""

import pytest

import ops
from ops._backends import Backend, choose


def refuses(*_):
    return 'it never can'


def can(*_):
    return None


TABLE = (Backend('first', lambda x: ('first', x), refuses), Backend('second', lambda x: ('second', x), can))


def test_first_that_can_is_taken():
    assert choose(TABLE, None, 1)(1) == ('second', 1)


def test_wanted_backend_is_taken():
    assert choose(TABLE, 'second', 1)(1) == ('second', 1)


def test_wanted_backend_that_cannot_run_says_why():
    with pytest.raises(ValueError, match='first: it never can'):
        choose(TABLE, 'first', 1)


def test_nothing_can_run_names_every_reason():
    with pytest.raises(ValueError, match='first: it never can; other: it never can'):
        choose((TABLE[0], Backend('other', can, refuses)), None, 1)


def test_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match=r"no backend 'third'.* first, second"):
        choose(TABLE, 'third', 1)


def test_every_place_of_the_index_holds_its_name():
    for name in ops.PLACES:
        assert getattr(ops, name).__name__ == name
    assert set(ops.PLACES) <= set(dir(ops))


def test_unknown_operator_names_the_known():
    with pytest.raises(AttributeError, match='na2d'):
        ops.no_such_operator  # noqa: B018


def test_what_is_not_worth_it_comes_last():
    table = (Backend('small', lambda x: 'small', can, lambda x: x < 3), Backend('any', lambda x: 'any', can))
    assert [choose(table, None, x)(x) for x in (1, 5)] == ['small', 'any']
    assert choose(table, 'small', 5)(5) == 'small'
    assert choose((table[0], TABLE[0]), None, 5)(5) == 'small'
