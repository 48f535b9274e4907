import common  # noqa: F401  before torch: it sets how OpenMP threads wait


def pytest_addoption(parser):
    parser.addoption(
        "--soak", type=float, default=1.0, help="minutes of the soak test (with -m slow)"
    )
    parser.addoption(
        "--episodes", type=int, default=50, help="of each expert in each task (with -m slow)"
    )
    parser.addoption(
        "--replay",
        type=float,
        default=60,
        help="seconds of play that are replayed, in each game (with -m slow)",
    )
