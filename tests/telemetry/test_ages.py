"""The histogram of ages counts in bulk what one by one would come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.metrics import Metrics
from caudal.telemetry.metrics import Ages

NOW = 1_767_225_600_000_000
BUCKETS = (0.001, 0.5, 2.0)
seconds = st.sampled_from([-5_000_000, -1, 0, 1, 999, 1000, 1001, 500_000, 500_001, 2_000_000, 9_000_000])


@given(st.lists(st.lists(seconds, max_size=8), max_size=3))
def test_ages_are_counted_as_one_by_one(batches: list[list[int]]) -> None:
    ages = Ages(Metrics(), "ages", "for a test", BUCKETS)
    for batch in batches:
        ages.observe(NOW, [NOW - age for age in batch])
    (family,) = ages.collect()
    found = {
        sample.labels.get("le", sample.name): sample.value
        for sample in family.samples
        if not sample.name.endswith("_count")
    }
    every = [max(0, age) / 1e6 for batch in batches for age in batch]
    wanted = {str(bound): sum(age <= bound for age in every) for bound in BUCKETS}
    assert found == pytest.approx({**wanted, "+Inf": len(every), "ages_sum": sum(every)})
