"""The top k kept up to date change by change are those that a full look at every outcome finds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sweeps.stopping.forecasting.top_k import TopKSamples

DRAWS = 16
moves = st.lists(
    st.tuples(st.integers(0, 70), st.sampled_from(("forecast", "infeasible", "out")), st.booleans()), max_size=60
)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), moves)
def test_places_follow_every_change_of_a_forecast(k, seed, moves):
    rng, samples, known = np.random.default_rng(seed), TopKSamples(k, DRAWS), {}
    for row, what, ask in moves:
        outcomes = rng.integers(0, 9, DRAWS).astype(float)  # few values: ties are common
        if what == "infeasible":
            outcomes[rng.random(DRAWS) < 0.5] = -np.inf
        if what == "out":
            samples.take_out([row])
        else:
            samples.put([row], outcomes[None])
        known.pop(row, None)
        if what != "out":
            known[row] = outcomes
        if ask:
            samples.settle()
            padded = [*known.values(), *np.full((k + 1, DRAWS), -np.inf)]
            best = np.sort(np.array(padded), axis=0)[::-1]
            assert (samples.kth == best[k - 1]).all()
            assert (samples.beyond == best[k]).all()
            assert np.array_equal(samples.of(np.array([row])), [known.get(row, np.full(DRAWS, -np.inf))])
            assert samples.members == known.keys()
