"""What time does to an account, to the model: in the order of time, however late one looks."""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import Books
from tests.support.credit_model.grants import refill
from tests.support.credit_model.holds import expire


def settle(books: Books, now_us: int) -> None:
    """Applies everything that is due: before each refill what ends before it."""
    while due := sorted((books.grants[n].next_refill_us, n) for n in books.recurring):
        refill_us, number = due[0]
        if refill_us > now_us:
            break
        _end(books, now_us, refill_us - 1)
        refill(books, books.grants[number], now_us)
    _end(books, now_us, now_us)


def _end(books: Books, now_us: int, until_us: int) -> None:
    """Holds by their expiry, then credit whose time is over."""
    due = sorted((books.holds[n].expire_us, n) for n in books.open_holds)
    for expire_us, number in due:
        if expire_us <= until_us:
            expire(books, books.holds[number], now_us)
    for currency in list(books.purses):
        for lot in books.purse(currency).lots:
            if lot.expire_us <= until_us:
                books.withdraw(currency, lot[:3])
                books.move(currency, expired=lot.remaining)
                kind = pb.ENTRY_KIND_EXPIRE_GRANT
                books.enter(kind, currency, lot.remaining, now_us, grant=lot.number)
