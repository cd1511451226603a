"""Decimal digits of Pi, each group computed from its position alone.

Alchemi's evaluation program: no task needs another's result, and later groups cost more than earlier ones.
Owns the two computations (by position, and all at once to check against); knows nothing of the grid.
"""

from math import isqrt, log

GROUP_DIGITS = 9
"""Digits that one task computes."""

_FRACTION_BITS = 128
"""The sum is kept as an integer of this many bits: 9 digits need 30, each of some thousand primes costs one of the rest."""

_GUARD_TERMS = 20
"""Decimal places beyond the wanted position that the truncated series is right to."""


def starts(digits: int) -> range:
    """Return the positions, counted from 0 after the point, at which the groups of the first `digits` begin."""
    return range(0, digits, GROUP_DIGITS)


def digits_at(start: int) -> str:
    """Return the `GROUP_DIGITS` decimal digits of Pi that begin `start` places after the point.

    start: 0 for "141592653". Time grows with its square, memory with its square root.

    Source: S. Plouffe, "On the computation of the n-th decimal digit of various transcendental numbers" (1996), and
    F. Bellard, "Computation of the n'th digit of pi in any base in O(n^2)" (1997): in
    Pi + 3 = sum of k 2^k k!^2 / (2k)! every prime power of the denominators is summed by itself, modulo that power.
    """
    terms = int((start + _GUARD_TERMS) * log(10) / log(2))
    fraction = 0
    for prime in _odd_primes(2 * terms):
        power = prime ** int(log(2 * terms) / log(prime))
        total = _sum_modulo(prime, power, terms) * pow(10, start, power) % power
        fraction += (total << _FRACTION_BITS) // power
    fraction %= 1 << _FRACTION_BITS
    return f"{fraction * 10**GROUP_DIGITS >> _FRACTION_BITS:0{GROUP_DIGITS}d}"


def _sum_modulo(prime: int, power: int, terms: int) -> int:
    """Return `power` times the part of the series whose denominators `prime` divides, modulo `power`.

    The running sum is held as total / denominator, so that a modular inverse is needed once, not once per term.
    """
    total, numerator, denominator, scale = 0, 1, 1, power
    k = 1
    while k <= terms:
        # Up to the next k at which the prime divides k or 2k - 1, nothing has to be divided out.
        stop = min(k - k % -prime, k + (prime + 1 - 2 * k) % (2 * prime) // 2, terms + 1)
        if scale < power:  # the prime is in the denominator: these terms count
            for each in range(k, stop):
                odd = 2 * each - 1
                numerator = numerator * each % power
                denominator = denominator * odd % power
                total = (total * odd + each * numerator * scale) % power
        else:
            skipped = 1
            for each in range(k, stop):
                numerator = numerator * each % power
                skipped = skipped * (2 * each - 1) % power
            denominator = denominator * skipped % power
            total = total * skipped % power
        k = stop
        if k > terms:
            break
        odd, factor = 2 * k - 1, k
        while odd % prime == 0:
            odd //= prime
            scale //= prime
        while factor % prime == 0:
            factor //= prime
            scale *= prime
        numerator = numerator * factor % power
        denominator = denominator * odd % power
        total = (total * odd + k * numerator * scale) % power
        k += 1
    return total * pow(denominator, -1, power) % power


def _odd_primes(limit: int) -> list[int]:
    """Return the odd primes up to `limit`, by the sieve of Eratosthenes."""
    sieve = bytearray([1]) * (limit + 1)
    for candidate in range(3, isqrt(limit) + 1, 2):
        if sieve[candidate]:
            sieve[candidate * candidate :: 2 * candidate] = bytes(
                len(range(candidate * candidate, limit + 1, 2 * candidate))
            )
    return [number for number in range(3, limit + 1, 2) if sieve[number]]


def all_digits(digits: int) -> str:
    """Return the first `digits` decimal digits of Pi after the point, by another formula than `digits_at`.

    Source: D. and G. Chudnovsky (1988), summed by binary splitting.
    """
    one = 10 ** (digits + 10)
    _, q, t = _split(0, digits // 14 + 2)
    pi = q * 426880 * isqrt(10005 * one * one) // t
    return str(pi // 10**10)[1:]


def _split(a: int, b: int) -> tuple[int, int, int]:
    """Return the integers P, Q, T of Chudnovsky's terms `[a, b)`."""
    if b - a == 1:
        if a == 0:
            return 1, 1, 13591409
        p = (6 * a - 5) * (2 * a - 1) * (6 * a - 1)
        q = a * a * a * (640320**3 // 24)
        t = p * (13591409 + 545140134 * a)
        return p, q, -t if a % 2 else t
    middle = (a + b) // 2
    p1, q1, t1 = _split(a, middle)
    p2, q2, t2 = _split(middle, b)
    return p1 * p2, q1 * q2, q2 * t1 + p1 * t2
