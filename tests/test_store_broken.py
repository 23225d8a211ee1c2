"""The conformance suite bites, and lets a good store through (R6)."""

import logging
import unittest

import pytest

import broken_store
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.testing import StoreConformance

# What the defect of each store must trip over; other tests may fail as well.
EXPECTED = {
    "UpsertingStore": {
        "test_apply_never_creates",
        "test_a_slow_request_cannot_resurrect",
    },
    "OverwritingStore": {
        "test_create_refuses_a_live_handle",
        "test_twenty_create_at_once",
    },
    "TrustingStore": {"test_expect", "test_one_handle_in_one_batch"},
    "TokenBlindStore": {"test_expect"},
    "LazyStore": {"test_expired_is_absent", "test_create_over_an_expired_record"},
    "ShorteningStore": {"test_expiry_only_moves_forward"},
    "BlobStore": {"test_different_keys_at_once", "test_counting_at_once"},
    "WipingStore": {"test_apply_touches_what_it_names"},
    "SweepingAllStore": {"test_sweep"},
    "SweepingLiveStore": {"test_expiry_only_moves_forward"},
    "SharingStore": {"test_count_and_clear"},
    "StaleIndexStore": {"test_find", "test_expired_is_absent"},
    "PagingStore": {"test_iterate"},
    "AllOrNothingStore": {"test_a_bad_item_stands_alone"},
    "UnorderedStore": {"test_one_handle_in_one_batch"},
    "TextStore": {"test_round_trip"},
    "DottedKeyStore": {"test_keys"},
    "OneShotStore": {"test_open_and_close"},
    "ReassuringStore": {"test_delete_expects_a_token"},
    "GullibleStore": {"test_hints_are_no_more_than_that"},
    "FirstPageStore": {"test_many_at_once"},
}


def failures_of(store_class):
    """Run the suite on a store class; return the names of the tests that failed."""

    class Case(StoreConformance, unittest.IsolatedAsyncioTestCase):
        async def make_store(self, clock, namespace):
            if store_class.shared:
                return store_class(namespace[:21], clock=clock)
            return store_class(clock=clock)

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun > 25
    return {case._testMethodName for case, _ in result.failures + result.errors}


def test_a_good_store_passes():
    """R6: nothing in the suite fails a store that keeps the contract."""
    assert failures_of(MemoryStore) == set()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_broken_store_fails(name):
    """R2, R6: a defect known from real session stores is found, by the right test."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    failed = failures_of(getattr(broken_store, name))
    assert EXPECTED[name] <= failed


def test_every_broken_store_is_tried():
    """R6: no store of the collection is left out."""
    made = {
        name
        for name, value in vars(broken_store).items()
        if isinstance(value, type) and value.__module__ == broken_store.__name__
    }
    assert made == set(EXPECTED)
