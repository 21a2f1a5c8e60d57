"""Goodput of a month in which a run is killed every half hour: its ledger, by a clock that is told the time.

`python -m tests.measures.month`. Seconds of a step, a save and a restart are given, not measured; where kills fall is
drawn. What is real is the ledger's account.
"""

import random

from osjax.training.goodput import Account

DAY_S = 86400.0
RESTART = {"start": 8.0, "prepare": 4.0, "restore": 10.0, "compile": 8.0}  # 30 s
CASES = (  # steps between checkpoints, seconds of a step, seconds that a save holds it up
    (1, 20.0, 0.2),
    (3, 20.0, 0.2),
    (9, 20.0, 0.2),
    (3, 20.0, 2.0),
)


def month(every: int, step_s: float, save_s: float, restart=RESTART, between_s=1800.0, days=30.0, seed=0) -> Account:
    """The account of a run with kills at random, `between_s` apart in the mean."""
    rng, account = random.Random(seed), Account()
    now, step, saved, last = 0.0, 0, 0, days * DAY_S

    def spend(dies: float, cause: str, seconds: float, **about) -> bool:
        """Whether something came to its end before the kill; what did not has no line."""
        nonlocal now
        if now + seconds > dies:
            now = dies
            return False
        now += seconds
        account.add({"at": now, "stage": "s", **about, "spent": {cause: seconds}})
        return True

    while now < last:
        dies = now + rng.expovariate(1 / between_s)
        if not all(spend(dies, cause, seconds) for cause, seconds in restart.items()):
            continue
        step = saved
        account.add({"at": now, "stage": "s", "begins": step, "spent": {}})
        while now < last and spend(dies, "step", step_s, step=step):
            step += 1
            if step % every == 0:
                if not spend(dies, "save", save_s):
                    break
                saved = step
    return account


def main() -> None:
    print("| checkpoint every | a save holds up | restart | goodput | lost |")
    print("|--:|--:|--:|--:|---|")
    for restart in (RESTART, {name: seconds / 2 for name, seconds in RESTART.items()}):
        for every, step_s, save_s in CASES:
            shares = month(every, step_s, save_s, restart).shares()
            lost = ", ".join(f"{name[5:]} {x:.1%}" for name, x in shares.items() if name != "goodput" and x > 0.0005)
            whole = sum(restart.values())
            print(f"| {every * step_s:.0f} s | {save_s} s | {whole:.0f} s | {shares['goodput']:.1%} | {lost} |")


if __name__ == "__main__":
    main()
