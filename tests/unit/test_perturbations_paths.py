import math

import pytest
import torch

from actspace.errors import StudyError
from actspace.perturbations.paths import PATHS, absolute_path, interpolating_path, path_of, sphere_path, straight_path
from perturbation_models import gaussian

ANGLES = torch.linspace(0, 180, 13, dtype=torch.float64)
FRACTIONS = torch.linspace(0, 1, 6, dtype=torch.float64)


def test_sphere_path_by_hand():
    base, direction = torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.1]])
    at = sphere_path(base, direction, torch.tensor([0.0, 30.0, 90.0, 180.0]))[0]
    expected = torch.tensor([[2.0, 0.0], [math.sqrt(3), 1.0], [0.0, 2.0], [-2.0, 0.0]])
    torch.testing.assert_close(at, expected)


def test_straight_path_by_hand():
    base, direction = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.1]])
    at = straight_path(base, direction, torch.tensor([0.0, 0.5, 1.0]))[0]
    torch.testing.assert_close(at, torch.tensor([[3.0, 4.0], [3.0, 6.5], [3.0, 9.0]]))


def test_sphere_path_keeps_the_norm():
    base, direction = gaussian(2, 5, 16)
    norms = sphere_path(base, direction, ANGLES).norm(dim=-1)
    torch.testing.assert_close(norms, base.norm(dim=-1)[:, None].expand_as(norms))


def test_sphere_path_is_the_same_toward_a_target_and_along_it():
    base, target = gaussian(2, 5, 16)
    toward, along = sphere_path(base, target - base, ANGLES), sphere_path(base, target, ANGLES)
    torch.testing.assert_close(toward, along, rtol=1e-6, atol=1e-12)


def test_straight_path_tells_toward_a_target_from_along_it():
    base, target = gaussian(2, 5, 16)
    assert not torch.allclose(straight_path(base, target - base, FRACTIONS), straight_path(base, target, FRACTIONS))


@pytest.mark.parametrize("name", ["sphere", "straight", "absolute"])
def test_length_of_the_direction_does_not_count(name):
    base, direction = gaussian(2, 5, 16)
    path = PATHS[name]
    grid = path.grid(31)
    torch.testing.assert_close(path.points(base, 1e-3 * direction, grid), path.points(base, direction, grid))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_leading_axes_broadcast_and_positions_may_differ_by_row(path):
    bases, directions = gaussian(3, 1, 16), gaussian(3, 4, 16, seed=1)
    positions = path.grid(31)[torch.arange(12).reshape(3, 4, 1)]
    points = path.points(bases, directions, positions)
    for prompt, draw in ((0, 0), (2, 3)):
        one = path.points(bases[prompt, 0], directions[prompt, draw], positions[prompt, draw])
        torch.testing.assert_close(points[prompt, draw], one)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_coordinates_are_those_of_the_points(path):
    bases, directions = gaussian(3, 1, 16), gaussian(3, 4, 16, seed=1)
    grid = path.grid(31)
    angle, relative = path.coordinates(bases, directions, grid)
    points, base = path.points(bases, directions, grid), bases[..., None, :]
    cosine = torch.cosine_similarity(points, base.expand_as(points), dim=-1).clamp(-1, 1)
    torch.testing.assert_close(angle, torch.rad2deg(cosine.acos()), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(relative, (points - base).norm(dim=-1) / base.norm(dim=-1), rtol=1e-6, atol=1e-12)


def test_the_absolute_path_ends_at_its_length_whatever_the_base():
    base, direction = gaussian(2, 5, 16)
    path = path_of("absolute", 40.0)
    points = path.points(base, direction, path.grid(31))
    torch.testing.assert_close((points - base[:, None]).norm(dim=-1), path.grid(31).expand(5, -1))
    assert (path.end, path.tolerance) == (40.0, 0.04)


def test_interpolation_ends_at_the_target_and_is_half_way_in_the_middle():
    base, target = gaussian(2, 5, 16)
    path = PATHS["interpolate"]
    points = path.points(base, target - base, path.grid(31))
    torch.testing.assert_close(points[:, -1], target)
    torch.testing.assert_close(points[:, 15], (base + target) / 2)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (straight_path, "direction is zero"),
        (absolute_path, "direction is zero"),
        (interpolating_path, "target is the base"),
    ],
)
def test_a_direction_without_length_has_no_straight_path(path, what):
    directions = gaussian(2, 3, 8)
    directions[1, 2] = 0
    with pytest.raises(StudyError, match=rf"row \(1, 2\): the {what}"):
        path(gaussian(2, 1, 8), directions, FRACTIONS)


@pytest.mark.parametrize("factor", [0.0, 3.0, -1.0])
def test_a_parallel_direction_has_no_meridian(factor):
    base = gaussian(4, 16)
    with pytest.raises(StudyError, match=r"row \(0\): the direction is parallel"):
        sphere_path(base, factor * base, ANGLES)


def test_a_zero_base_has_no_sphere():
    with pytest.raises(StudyError, match="the base is zero"):
        sphere_path(torch.zeros(1, 4), torch.ones(1, 4), ANGLES.float())


@pytest.mark.parametrize(("name", "steps"), [("sphere", 30), ("straight", 20)])
def test_a_grid_too_coarse_for_first_crossings_is_refused(name, steps):
    with pytest.raises(StudyError, match=f"steps: {steps} is too coarse for the {name} path; set it to {steps + 1}"):
        PATHS[name].grid(steps)
    assert len(PATHS[name].grid(steps + 1)) == steps + 1
