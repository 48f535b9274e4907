import sim  # noqa: F401  before torch: it sets how OpenMP threads wait
