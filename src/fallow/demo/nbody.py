"""Gravitating bodies by the Barnes-Hut method, one star cluster per seed (Melody's application).

Owns one simulation of one cluster, in units where G, the total mass and the cluster's radius are 1.

Source: J. Barnes and P. Hut, "A hierarchical O(N log N) force-calculation algorithm", Nature 324 (1986). Bodies start
in a Plummer sphere (S. Aarseth, M. Henon and R. Wielen, 1974) and move by the leapfrog scheme, which bounds the
error of the energy; how far the energy drifts therefore tells whether a run can be trusted.
"""

from math import cos, pi, sin, sqrt
from random import Random
from typing import NamedTuple

OPENING_ANGLE = 0.5
"""A cell is taken as one mass if its width is less than this many times its distance."""

SOFTENING = 0.05
"""Length below which gravity is weakened, so that close encounters need no shorter steps."""

MAX_DRIFT = 0.01
"""Relative change of the total energy above which a run is not to be trusted."""

_MAX_DEPTH = 40
"""Bodies closer than the root's width / 2**40 share a cell."""

Vector = tuple[float, float, float]


class Outcome(NamedTuple):
    """What became of one cluster."""

    seed: int
    drift: float
    """Relative change of the total energy."""
    half_mass_radius: float
    """Radius around the centre of mass that holds half of the bodies at the end."""


class _Cell:
    """A cube of space: either one place with a mass, or up to eight smaller cells."""

    __slots__ = ("cells", "centre", "mass", "moment", "width")

    def __init__(self, centre: Vector, width: float) -> None:
        self.centre = centre
        self.width = width
        self.mass = 0.0
        self.moment: Vector = (0.0, 0.0, 0.0)
        self.cells: dict[int, _Cell] | None = None

    def add(self, place: Vector, mass: float, depth: int = 0) -> None:
        if self.mass and depth < _MAX_DEPTH:
            if self.cells is None:
                self.cells = {}
                self._pass_down(self.place, self.mass, depth)
            self._pass_down(place, mass, depth)
        self.mass += mass
        self.moment = (
            self.moment[0] + mass * place[0],
            self.moment[1] + mass * place[1],
            self.moment[2] + mass * place[2],
        )

    @property
    def place(self) -> Vector:
        return (self.moment[0] / self.mass, self.moment[1] / self.mass, self.moment[2] / self.mass)

    def _pass_down(self, place: Vector, mass: float, depth: int) -> None:
        assert self.cells is not None
        octant = sum(1 << axis for axis in range(3) if place[axis] >= self.centre[axis])
        cell = self.cells.get(octant)
        if cell is None:
            shift = self.width / 4
            x, y, z = (c + (shift if octant >> axis & 1 else -shift) for axis, c in enumerate(self.centre))
            cell = self.cells[octant] = _Cell((x, y, z), self.width / 2)
        cell.add(place, mass, depth + 1)


def plummer_sphere(seed: int, bodies: int) -> tuple[list[Vector], list[Vector]]:
    """Return places and velocities of `bodies` equal masses in equilibrium, with the centre of mass at rest."""
    draw = Random(seed)
    places, velocities = [], []
    for _ in range(bodies):
        radius = min(1 / sqrt(draw.uniform(0.001, 1.0) ** (-2 / 3) - 1 + 1e-9), 10.0)
        places.append(_in_some_direction(draw, radius))
        speed, bar = 0.0, 0.1
        while bar > speed * speed * (1 - speed * speed) ** 3.5:  # von Neumann's rejection
            speed, bar = draw.random(), draw.uniform(0, 0.1)
        velocities.append(_in_some_direction(draw, speed * sqrt(2) * (1 + radius * radius) ** -0.25))
    return _centred(places), _centred(velocities)


def _in_some_direction(draw: Random, length: float) -> Vector:
    z, angle = draw.uniform(-1, 1), draw.uniform(0, 2 * pi)
    across = sqrt(1 - z * z)
    return (length * across * cos(angle), length * across * sin(angle), length * z)


def _centred(vectors: list[Vector]) -> list[Vector]:
    mean = [sum(axis) / len(vectors) for axis in zip(*vectors, strict=True)]
    return [(x - mean[0], y - mean[1], z - mean[2]) for x, y, z in vectors]


def accelerations(places: list[Vector], opening_angle: float = OPENING_ANGLE) -> tuple[list[Vector], float]:
    """Return each body's acceleration and the potential energy, for bodies of mass 1 / len(places).

    opening_angle: 0 opens every cell, which sums all pairs.
    """
    reach = max(max(abs(c) for c in place) for place in places)
    root = _Cell((0.0, 0.0, 0.0), 2 * reach + 1e-9)
    mass = 1 / len(places)
    for place in places:
        root.add(place, mass)
    pulls, potential = [], 0.0
    for place in places:
        pull, potential_here = _pull(root, place, opening_angle)
        pulls.append(pull)
        potential += mass * potential_here / 2
    return pulls, potential


def _pull(root: _Cell, place: Vector, opening_angle: float) -> tuple[Vector, float]:
    x, y, z = place
    ax = ay = az = potential = 0.0
    pending = [root]
    while pending:
        cell = pending.pop()
        mx, my, mz = cell.moment
        dx, dy, dz = mx / cell.mass - x, my / cell.mass - y, mz / cell.mass - z
        squared = dx * dx + dy * dy + dz * dz
        if cell.cells is not None and cell.width * cell.width >= opening_angle * opening_angle * squared:
            pending.extend(cell.cells.values())
        elif squared > 0:  # a body does not pull itself
            softened = squared + SOFTENING * SOFTENING
            strength = cell.mass / sqrt(softened)
            potential -= strength
            strength /= softened
            ax += dx * strength
            ay += dy * strength
            az += dz * strength
    return (ax, ay, az), potential


def simulate(seed: int, *, bodies: int = 64, steps: int = 50, step: float = 0.02) -> Outcome:
    """Run one cluster for `steps` leapfrog steps of length `step` and say how it ended."""
    places, velocities = plummer_sphere(seed, bodies)
    pulls, potential = accelerations(places)
    before = potential + _kinetic(velocities)
    for _ in range(steps):
        velocities = _moved(velocities, pulls, step / 2)
        places = _moved(places, velocities, step)
        pulls, potential = accelerations(places)
        velocities = _moved(velocities, pulls, step / 2)
    drift = (potential + _kinetic(velocities)) / before - 1
    radii = sorted(sqrt(x * x + y * y + z * z) for x, y, z in _centred(places))
    return Outcome(seed, drift, radii[bodies // 2])


def _moved(vectors: list[Vector], rates: list[Vector], time: float) -> list[Vector]:
    return [(x + u * time, y + v * time, z + w * time) for (x, y, z), (u, v, w) in zip(vectors, rates, strict=True)]


def _kinetic(velocities: list[Vector]) -> float:
    return sum(u * u + v * v + w * w for u, v, w in velocities) / 2 / len(velocities)
