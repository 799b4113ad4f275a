"""Python functions as tasks: call them, map them, see what they raise. Run me anywhere: python 03_functions.py"""

import scitq


def count_primes(limit: int) -> int:
    """How many primes are below a number, the slow way."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))


with scitq.open("functions.scitq") as q, q.executor(retry=1, batch="primes") as pool:
    # A future, as from any other executor; it also is a task, which goes on if this program ends.
    future = pool.submit(count_primes, 20_000)
    print("below 20,000:", future.result(), "primes, counted by task", future.task.id)

    # Many calls travel in few tasks; results come in order.
    limits = range(1000, 4000, 100)
    print("below 1,000, 1,100…:", *list(pool.map(count_primes, limits))[:5])

    # What a function raises comes back as what it is, with the traceback of where it was raised.
    try:
        pool.submit(count_primes, "many").result()
    except TypeError as error:
        print(f"TypeError: {error}; raised there:", str(error.__cause__).strip('" \n').splitlines()[-1])
