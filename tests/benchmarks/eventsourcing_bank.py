"""The bank account as an aggregate of the Python ``eventsourcing`` package, for comparison."""

# Without postponed annotations: the package reads the signatures of decorated methods.

from eventsourcing.domain import Aggregate, event


class Account(Aggregate):
    @event("Opened")
    def __init__(self) -> None:
        self.balance = 0.0

    def deposit(self, amount: float) -> None:
        self.deposited(amount, self.balance + amount)

    @event("Deposited")
    def deposited(self, amount: float, balance: float) -> None:
        self.balance = balance
