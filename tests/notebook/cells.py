"""What the notebooks of the tests begin with."""

BANK = """
import graft

class Bank(graft.StateMachine):
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    @graft.command
    def deposit(self, who: str, amount: int) -> int:
        self.accounts[who] = self.accounts.get(who, 0) + amount
        return self.accounts[who]

    @graft.query
    def balance(self, who: str) -> int:
        return self.accounts.get(who, 0)
"""
CLUSTER = 'cluster = graft.LocalCluster(Bank, 3, name="demo", timeout="30s")\ncluster'
