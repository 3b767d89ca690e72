"""Ways to break the protocol, one at a time, as edits of the sources; and the test that has to notice each.

A mutant is a change that a hand could slip into: a comparison that is left out, two lines in the wrong order,
a setting that is a little faster. An edit names the text that it replaces, which has to be there exactly
once: a mutant that fits no more is out of date, and fails its test.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

__all__ = ["MUTANTS", "Mutant"]

Edit: TypeAlias = tuple[str, str]
"""What is there, and what stands there instead."""


@attrs.frozen(kw_only=True)
class Mutant:
    """One broken copy."""

    name: str
    file: str
    """In the package ``durable_effect_jobs``."""
    edits: tuple[Edit, ...]
    test: str
    """The node id, below ``tests``, of a test that fails on it."""

    def broken(self, source: str) -> str:
        """The source with the edits made."""
        for old, new in self.edits:
            found = source.count(old)
            if found != 1:
                raise ValueError(f"{self.name}: {self.file} has {old!r} {found} times")
            source = source.replace(old, new)
        return source


_Found: TypeAlias = tuple[str, tuple[Edit, ...]]


def _by(test: str, *edits: Edit) -> _Found:
    return test, edits


def _contract(storage: str, check: str, *edits: Edit) -> _Found:
    return f"storage/test_storage_contract.py::test_keeps_the_contract[_{storage}-{check}]", edits


def _in(file: str, found: dict[str, _Found]) -> list[Mutant]:
    what = file.removeprefix("storage/").removesuffix(".py")
    return [
        Mutant(name=f"{what}: {name}", file=file, edits=edits, test=test)
        for name, (test, edits) in found.items()
    ]


# -- storage/sqlite.py -----------------------------------------------------------------------------

_SQLITE: dict[str, _Found] = {
    "a commit does not compare the fence": _by(
        "storage/test_sqlite_moments.py::test_a_step_on_what_was_renewed_and_released_in_its_transaction",
        (
            (
                "WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? "
                "AND fence = ?\n"
                "      AND token IS NOT ?"
            ),
            (
                "WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? "
                "AND ? IS NOT NULL\n"
                "      AND token IS NOT ?"
            ),
        ),
    ),
    "a commit does not compare the revision": _contract(
        "sqlite",
        "a_stale_commit_changes_nothing",
        (
            (
                "WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? "
                "AND fence = ?\n"
                "      AND token IS NOT ?"
            ),
            (
                "WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND ? IS NOT NULL "
                "AND fence = ?\n"
                "      AND token IS NOT ?"
            ),
        ),
    ),
    "a commit does not compare the incarnation": _by(
        "storage/test_sent_again.py::test_a_step_that_was_the_last_before_the_removal_is_known[sqlite]",
        (
            (
                "WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? "
                "AND fence = ?\n"
                "      AND token IS NOT ?"
            ),
            (
                "WHERE kind = ? AND job = ? AND id = ? AND ? IS NOT NULL AND revision = ? AND "
                "fence = ?\n"
                "      AND token IS NOT ?"
            ),
        ),
    ),
    "a removal does not compare the fence": _contract(
        "sqlite",
        "incarnation_revision_and_fence_are_compared",
        (
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = "
                "? AND fence = ?\n"
            ),
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = "
                "? AND ? IS NOT NULL\n"
            ),
        ),
    ),
    "a removal does not compare the revision": _contract(
        "sqlite",
        "a_stale_commit_changes_nothing",
        (
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = "
                "? AND fence = ?\n"
            ),
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND ? IS NOT "
                "NULL AND fence = ?\n"
            ),
        ),
    ),
    "a removal does not compare the incarnation": _contract(
        "sqlite",
        "an_id_that_is_used_again_is_another_instance",
        (
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = "
                "? AND fence = ?\n"
            ),
            (
                "DELETE FROM instance\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND ? IS NOT NULL AND revision = ? "
                "AND fence = ?\n"
            ),
        ),
    ),
    "a birth replaces what is there": _by(
        "storage/test_sqlite_storage.py::test_a_refused_commit_is_not_remembered",
        (
            ("VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)\n    ON CONFLICT DO NOTHING"),
            (
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)\n"
                "    ON CONFLICT DO UPDATE SET record = excluded.record, state = excluded.state"
            ),
        ),
    ),
    "a removal of nothing removes what is there": _contract(
        "sqlite",
        "a_stale_commit_changes_nothing",
        (
            "return connection.execute(_EXISTS, key).fetchone() is None",
            "return True",
        ),
    ),
    "a commit that is sent again is written again": _by(
        "storage/test_sent_again.py::test_a_step_that_leaves_the_record_happens_once[sqlite]",
        (
            "AND token IS NOT ?",
            "AND token IS NOT ? || 'x'",
        ),
    ),
    "an update that is sent again conflicts": _by(
        "storage/test_sqlite_storage.py::test_fences_go_on_after_a_failed_batch",
        (
            ("        if row is not None:\n            return int(row[0])\n"),
            "",
        ),
    ),
    "a commit that is sent again learns the fence of another run": _contract(
        "sqlite",
        "a_commit_that_is_sent_again_learns_no_fence_of_another",
        (
            '_ANSWERED = "SELECT answered FROM',
            '_ANSWERED = "SELECT fence FROM',
        ),
    ),
    "no receipt of removals": _by(
        "storage/test_sqlite_storage.py::test_receipts_are_removed_in_passing",
        (
            "    connection.execute(_ADD_RECEIPT, (commit.token, expires_us))\n",
            "",
        ),
    ),
    "no receipt of the write before a removal": _by(
        "storage/test_sqlite_storage.py::test_receipts_are_removed_in_passing",
        (
            ("    connection.execute(_ADD_RECEIPT_OF_RECORD, (expires_us, *_columns(commit.key)))\n"),
            "",
        ),
    ),
    "receipts are not looked at first": _by(
        "storage/test_sqlite_storage.py::test_receipts_are_removed_in_passing",
        (
            ("        if not updates and self._is_spent(connection, commit.token):\n            return 0\n"),
            "",
        ),
    ),
    "receipts are not looked at after a conflict": _by(
        "storage/test_sent_again.py::test_a_step_that_was_the_last_before_the_removal_is_known[sqlite]",
        (
            (
                "            return int(row[0])\n"
                "        if self._is_spent(connection, commit.token):\n"
                "            return 0\n"
            ),
            "            return int(row[0])\n",
        ),
    ),
    "receipts are forgotten at once": _by(
        "storage/test_sqlite_storage.py::test_receipts_are_removed_in_passing",
        (
            "_RECEIPT_US = 3_600_000_000",
            "_RECEIPT_US = 0",
        ),
    ),
    "a renewal does not compare the fence": _contract(
        "sqlite",
        "a_lease_is_renewed_by_its_holder",
        (
            "AND +lease_owner = ? AND fence = ?",
            "AND +lease_owner = ? AND ?",
        ),
    ),
    "a renewal does not compare the owner": _contract(
        "sqlite",
        "a_lease_is_renewed_by_its_holder",
        (
            "AND +lease_owner = ? AND fence = ?",
            "AND lease_owner IS NOT NULL AND ? IS NOT NULL AND fence = ?",
        ),
    ),
    "a renewal says that all are held": _contract(
        "sqlite",
        "a_commit_without_a_lease_frees_the_record",
        (
            ("if connection.execute(_RENEW, (until_us, *_columns(key), owner, fence)).rowcount == 1"),
            ("if connection.execute(_RENEW, (until_us, *_columns(key), owner, fence)).rowcount >= 0"),
        ),
    ),
    "a release does not compare the owner": _contract(
        "sqlite",
        "a_release_gives_leases_back",
        (
            ("fence = ?\n    WHERE kind = ? AND job = ? AND id = ? AND +lease_owner = ?"),
            (
                "fence = ?\n"
                "    WHERE kind = ? AND job = ? AND id = ? AND lease_owner IS NOT NULL AND ? "
                "IS NOT NULL"
            ),
        ),
    ),
    "a release keeps the fence": _by(
        "storage/test_sqlite_moments.py::test_a_step_on_what_was_renewed_and_released_in_its_transaction",
        (
            "lease_until_us = NULL, fence = ?\n",
            "lease_until_us = NULL, fence = coalesce(fence, ?)\n",
        ),
    ),
    "a release gives nothing back": _by(
        "storage/test_sqlite_moments.py::test_a_step_on_what_was_renewed_and_released_in_its_transaction",
        (
            ("for key in keys:\n            connection.execute(_RELEASE"),
            ("for key in ():\n            connection.execute(_RELEASE"),
        ),
    ),
    "a release of all gives the leases of all back": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            "FROM instance WHERE lease_owner = ?",
            "FROM instance WHERE ? IS NULL OR lease_owner IS NOT NULL",
        ),
        (
            ('AND +lease_owner = ?\n"""\n\n_LEASED_BY'),
            ('AND lease_owner IS NOT NULL AND ? IS NOT NULL\n"""\n\n_LEASED_BY'),
        ),
    ),
    "a claim ignores a live lease": _contract(
        "sqlite",
        "a_live_lease_cannot_be_claimed",
        (
            "AND +wake_us <= ?",
            "AND quarantined = 0 AND coalesce(alarm_us, lease_until_us) <= ?",
        ),
    ),
    "a claim ignores the alarm": _contract(
        "sqlite",
        "a_claim_takes_what_is_due",
        (
            "AND +wake_us <= ?",
            "AND ? IS NOT NULL AND NOT quarantined",
        ),
    ),
    "a claim ignores quarantine": _contract(
        "sqlite",
        "a_claim_refuses_what_is_not_due",
        (
            "AND +wake_us <= ?",
            "AND CASE WHEN lease_owner IS NULL THEN alarm_us ELSE lease_until_us END <= ?",
        ),
    ),
    "a claim comes a moment late": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "AND +wake_us <= ?",
            "AND +wake_us < ?",
        ),
    ),
    "a claim finds only alarms": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "AND +wake_us <= ?",
            "AND +wake_us <= ? AND lease_owner IS NULL",
        ),
    ),
    "a claim clears the alarm": _contract(
        "sqlite",
        "nothing_happens_until_it_is_run",
        (
            ("crashes = ?\n    WHERE kind"),
            ("crashes = ?, alarm_us = NULL\n    WHERE kind"),
        ),
    ),
    "a claim keeps the fence": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            ("fence=self._next_fence(connection),\n            crashes"),
            ("fence=row[2],\n            crashes"),
        ),
    ),
    "a claim of what a crash left keeps the fence": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            ("fence=self._next_fence(connection),\n            crashes"),
            ("fence=row[2] if recovered else self._next_fence(connection),\n            crashes"),
        ),
    ),
    "a claim counts no crash": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "crashes=row[4] + recovered",
            "crashes=row[4]",
        ),
    ),
    "a claim starts to count anew": _contract(
        "sqlite",
        "a_lease_that_is_over_is_recovered_and_counted",
        (
            "crashes=row[4] + recovered",
            "crashes=int(recovered)",
        ),
    ),
    "a claim counts its own old lease as a crash": _contract(
        "sqlite",
        "a_lease_that_is_over_is_recovered_and_counted",
        (
            "former_owner is not None and former_owner != claim.owner",
            "former_owner is not None",
        ),
    ),
    "a claim writes no lease": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "UPDATE instance SET lease_owner = ?, lease_until_us = ?, fence",
            (
                "UPDATE instance SET lease_owner = coalesce(NULL, lease_owner, substr(?, 99, "
                "NULL)), lease_until_us = nullif(?, lease_until_us) & NULL, fence"
            ),
        ),
    ),
    "a claim takes a remembered record for the stored one": _by(
        "storage/test_sqlite_moments.py::test_a_claim_in_the_transaction_of_a_commit_takes_what_that_wrote",
        (
            ("if known is not None and (known.incarnation, known.revision, known.fence) == row[:3]:"),
            "if known is not None:",
        ),
    ),
    "a commit leaves the lease": _contract(
        "sqlite",
        "a_commit_without_a_lease_frees_the_record",
        (
            (
                "lease_owner = ?, lease_until_us = ?, crashes = ?, quarantined = ?, alarm_us = "
                "?, record = ?, state = ?\n"
                "    WHERE"
            ),
            (
                "lease_owner = coalesce(?, lease_owner), lease_until_us = coalesce(?, "
                "lease_until_us),\n"
                "      crashes = ?, quarantined = ?, alarm_us = ?, record = ?, state = ?\n"
                "    WHERE"
            ),
        ),
    ),
    "a commit keeps the old alarm": _contract(
        "sqlite",
        "a_commit_replaces_the_record",
        (
            ("alarm_us = ?, record = ?, state = ?\n    WHERE"),
            ("alarm_us = coalesce(alarm_us, ?), record = ?, state = ?\n    WHERE"),
        ),
    ),
    "a commit does not clear the alarm": _contract(
        "sqlite",
        "a_commit_replaces_the_record",
        (
            ("alarm_us = ?, record = ?, state = ?\n    WHERE"),
            ("alarm_us = coalesce(?, alarm_us), record = ?, state = ?\n    WHERE"),
        ),
    ),
    "a commit keeps the count of crashes": _contract(
        "sqlite",
        "due_knows_suspects",
        (
            "lease_until_us = ?, crashes = ?, quarantined = ?, alarm_us = ?, record",
            ("lease_until_us = ?, crashes = max(crashes, ?), quarantined = ?, alarm_us = ?, record"),
        ),
    ),
    "a commit does not quarantine": _contract(
        "sqlite",
        "a_record_comes_back_as_it_was_written",
        (
            ("        instance.quarantined,\n        None if instance.alarm"),
            ("        False,\n        None if instance.alarm"),
        ),
    ),
    "a commit with a lease keeps the fence": _by(
        "storage/test_sqlite_storage.py::test_fences_go_on_after_a_failed_batch",
        (
            ("        if commit.after.lease is not None:\n            return self._next_fence(connection)\n"),
            "",
        ),
    ),
    "a commit without a lease loses its fence": _contract(
        "sqlite",
        "a_commit_without_a_lease_frees_the_record",
        (
            "return 0 if commit.before is None else commit.before.fence",
            "return 0",
        ),
    ),
    "fences are the record's own": _by(
        "storage/test_sqlite_storage.py::test_fences_go_on_after_a_failed_batch",
        (
            ("        if commit.after.lease is not None:\n            return self._next_fence(connection)\n"),
            (
                "        if commit.after.lease is not None:\n"
                "            return 1 if commit.before is None else commit.before.fence + 1\n"
            ),
        ),
    ),
    "fences begin anew with each process": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            ("        if self._gave_fences:\n            connection.execute(_STORE_FENCE, (self._fence,))\n"),
            "",
        ),
    ),
    "fences begin anew in each process after the first": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "self._fence = int(connection.execute(_LAST_FENCE).fetchone()[0])",
            "self._fence = 0",
        ),
    ),
    "a fence of a failed batch is given again": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            ("        self._fence = None\n        self._begin_batch()"),
            "        self._begin_batch()",
        ),
        (
            "self._gave_fences = True",
            "self._gave_fences = self._commits > 0",
        ),
    ),
    "a mark is not unique": _contract(
        "sqlite",
        "a_duplicate_event_changes_nothing",
        (
            (".rowcount == 0:\n            raise DuplicateEventError(mark.event_id)"),
            (".rowcount < 0:\n            raise DuplicateEventError(mark.event_id)"),
        ),
    ),
    "a mark is unique until it is removed": _by(
        "storage/test_sent_again.py::test_marks_that_are_over_take_no_room[sqlite]",
        (
            "WHERE mark.expires_us <= ?",
            "WHERE ? IS NULL",
        ),
    ),
    "a mark that is over is remembered for another moment": _by(
        "storage/test_sent_again.py::test_marks_that_are_over_take_no_room[sqlite]",
        (
            "WHERE mark.expires_us <= ?",
            "WHERE mark.expires_us < ?",
        ),
    ),
    "an expired mark counts": _contract(
        "sqlite",
        "a_duplicate_event_changes_nothing",
        (
            "AND event_id = ? AND expires_us > ?",
            "AND event_id = ? AND expires_us >= ?",
        ),
    ),
    "marks do not know their expiry": _contract(
        "sqlite",
        "a_duplicate_event_changes_nothing",
        (
            "AND event_id = ? AND expires_us > ?",
            "AND event_id = ? AND ? IS NOT NULL",
        ),
    ),
    "marks are those of all instances": _contract(
        "sqlite",
        "marks_belong_to_one_instance",
        (
            "SELECT 1 FROM mark WHERE kind = ? AND job = ? AND id = ? AND",
            "SELECT 1 FROM mark WHERE kind = ? AND job = ? AND ? IS NOT NULL AND",
        ),
    ),
    "a mark is written although the record conflicted": _by(
        "storage/test_sqlite_moments.py::test_a_write_whose_answer_was_lost_is_read_as_it_is",
        (
            ("        fence = self._fence_after(connection, commit)\n        if not _replace"),
            (
                "        if commit.mark is not None:\n"
                "            connection.execute('RELEASE operation')\n"
                "            self._mark(connection, commit.key, commit.mark, "
                "to_micros(commit.at))\n"
                "            connection.execute('SAVEPOINT operation')\n"
                "            commit = attrs.evolve(commit, mark=None)\n"
                "        fence = self._fence_after(connection, commit)\n"
                "        if not _replace"
            ),
        ),
    ),
    "no mark is written": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            ("        if commit.mark is not None:\n            self._mark"),
            ("        if commit.mark is None:\n            self._mark"),
        ),
    ),
    "no events are written": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            ("        if rows.events:\n            connection.executemany(_ADD_EVENT, rows.events)"),
            ("        if rows.events:\n            connection.executemany(_ADD_EVENT, [])"),
        ),
    ),
    "only the first event is written": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            "connection.executemany(_ADD_EVENT, rows.events)",
            "connection.executemany(_ADD_EVENT, rows.events[:1])",
        ),
    ),
    "events are written before it is known whether the record changed": _by(
        "storage/test_sqlite_storage.py::test_the_outbox_drops_the_oldest",
        (
            ("        fence = self._fence_after(connection, commit)\n        if not _replace"),
            (
                "        connection.execute('RELEASE operation')\n"
                "        connection.executemany(_ADD_EVENT, rows.events)\n"
                "        connection.execute('SAVEPOINT operation')\n"
                "        rows.events = []\n"
                "        fence = self._fence_after(connection, commit)\n"
                "        if not _replace"
            ),
        ),
    ),
    "no dead letter is written": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            "            connection.execute(_ADD_LETTER, rows.letter)\n",
            "",
        ),
    ),
    "a dead letter is brought back twice": _contract(
        "sqlite",
        "a_dead_letter_is_brought_back_once",
        (
            (
                "if commit.replays is not None and not connection.execute(_REMOVE_LETTER, "
                "(commit.replays,)).rowcount:"
            ),
            (
                "if commit.replays is not None and connection.execute(_REMOVE_LETTER, "
                "(commit.replays,)).rowcount < 0:"
            ),
        ),
    ),
    "a dead letter stays when it is brought back": _contract(
        "sqlite",
        "a_commit_that_is_sent_again_happens_once",
        (
            (
                "if commit.replays is not None and not connection.execute(_REMOVE_LETTER, "
                "(commit.replays,)).rowcount:"
            ),
            (
                "if commit.replays is not None and not connection.execute('SELECT count(*) "
                "FROM dead_letter WHERE number = ?', (commit.replays,)).fetchone()[0]:"
            ),
        ),
    ),
    "due has no order": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            "ORDER BY wake_us, id LIMIT ?",
            "ORDER BY id LIMIT ?",
        ),
        (
            "in sorted(found)[:limit]",
            "in found[:limit]",
        ),
    ),
    "due takes the latest": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            "ORDER BY wake_us, id LIMIT ?",
            "ORDER BY wake_us DESC, id LIMIT ?",
        ),
    ),
    "due has no limit": _contract(
        "sqlite",
        "due_is_ordered_and_bounded",
        (
            "in sorted(found)[:limit]",
            "in sorted(found)",
        ),
    ),
    "due comes a moment late": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            "AND job = ? AND wake_us <= ?\n",
            "AND job = ? AND wake_us < ?\n",
        ),
    ),
    "due finds only alarms": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "AND job = ? AND wake_us <= ?\n",
            "AND job = ? AND wake_us <= ? AND lease_owner IS NULL\n",
        ),
    ),
    "due knows no suspects": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "Due(Key(kind, job, its_id), crashes > 0)",
            "Due(Key(kind, job, its_id), crashes > 1)",
        ),
    ),
    "the next alarm is one that is due": _contract(
        "sqlite",
        "due_and_next_due_know_only_the_jobs_they_are_asked_for",
        (
            'AND job = ? AND wake_us > ?"',
            'AND job = ? AND wake_us >= ?"',
        ),
    ),
    "the next alarm is the last": _by(
        "storage/test_sqlite_storage.py::test_alarms_of_any_time_are_kept",
        (
            "SELECT min(wake_us) FROM instance",
            "SELECT max(wake_us) FROM instance",
        ),
    ),
    "leases outlive their process": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "connection.execute(_CUT_LEASES, (now_us, now_us))",
            "connection.execute('SELECT 1')",
        ),
    ),
    "leases are given up at the start, not cut": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            ("UPDATE instance SET lease_until_us = ? WHERE lease_owner IS NOT NULL AND lease_until_us > ?"),
            "UPDATE instance SET lease_owner = NULL, lease_until_us = NULL WHERE ? <= ?",
        ),
    ),
    "expired marks stay": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            ("(kind, job, id, event_id) IN (\n          SELECT"),
            ("(kind, job, id, event_id) NOT IN (\n          SELECT 1, 1, 1, 1 UNION ALL SELECT"),
        ),
    ),
    "marks are removed early": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            "FROM mark WHERE expires_us <= ? ORDER",
            "FROM mark WHERE ? IS NOT NULL ORDER",
        ),
    ),
    "dead letters are removed early": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            "FROM dead_letter WHERE expires_us <= ? ORDER",
            "FROM dead_letter WHERE ? IS NOT NULL ORDER",
        ),
    ),
    "receipts are removed early": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            "FROM receipt WHERE expires_us <= ? ORDER",
            "FROM receipt WHERE ? IS NOT NULL ORDER",
        ),
    ),
    "nothing that expired is removed": _by(
        "storage/test_sqlite_storage.py::test_expired_marks_are_removed_in_passing",
        (
            "if self._expire_us[table] <= self._latest_us:",
            "if self._expire_us[table] < _LONG_AGO:",
        ),
    ),
    "what expired is removed only once": _by(
        "storage/test_sqlite_storage.py::test_expired_marks_are_removed_in_passing",
        (
            ("                self._expire_us[table] = _NEVER if expires_us is None else int(expires_us)\n"),
            "                self._expire_us[table] = _NEVER\n",
        ),
    ),
    "what expires next is not noted": _by(
        "storage/test_sqlite_storage.py::test_expired_marks_are_removed_in_passing",
        (
            "self._expire_us[table] = min(self._expire_us[table], expires_us)",
            "self._expire_us[table] = max(self._expire_us[table], expires_us)",
        ),
    ),
    "the outbox drops the newest": _by(
        "storage/test_sqlite_storage.py::test_the_outbox_drops_the_oldest",
        (
            "DELETE FROM outbox WHERE seq <= (SELECT max(seq) FROM outbox) - ?",
            "DELETE FROM outbox WHERE seq > (SELECT min(seq) FROM outbox) + ? - 1",
        ),
    ),
    "the outbox has no bound": _by(
        "storage/test_sqlite_storage.py::test_the_outbox_drops_the_oldest",
        (
            "if self._outbox_grew:\n",
            "if self._outbox_grew is None:\n",
        ),
    ),
    "the outbox has no order": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            "FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
            "FROM outbox WHERE seq > ? ORDER BY event_id DESC LIMIT ?",
        ),
    ),
    "events that were sent stay": _contract(
        "sqlite",
        "events_come_back_in_the_order_of_their_commits",
        (
            "connection.executemany(_REMOVE_EVENT, rows)",
            "connection.executemany(_REMOVE_EVENT, rows[:1])",
        ),
    ),
    "a refused commit is remembered": _by(
        "storage/test_sqlite_storage.py::test_a_refused_commit_is_not_remembered",
        (
            ("        rows = _Rows(commit)  # encoded here, while the thread waits for the disk\n"),
            (
                "        rows = _Rows(commit)  # encoded here, while the thread waits for the "
                "disk\n"
                "            self._contents.remember(commit.key, commit.after)\n"
            ),
        ),
    ),
    "a commit is remembered before it is durable": _by(
        "storage/test_sqlite_moments.py::test_nobody_sees_a_write_before_it_is_durable",
        (
            "        rows.written = True\n",
            ("        rows.written = True\n        self.committed(commit, rows, fence)\n"),
        ),
    ),
    "what a failed batch wrote stays remembered": _by(
        "storage/test_sqlite_storage.py::test_a_closed_storage_refuses_calls",
        (
            "        self.remembered.clear()\n",
            "",
        ),
    ),
    "a commit is not remembered": _by(
        "storage/test_sqlite_storage.py::test_a_step_on_a_remembered_record_reads_nothing",
        (
            ("            self.remember(commit.key, after)\n        else:"),
            ("            pass\n        else:"),
        ),
    ),
    "a claim is not remembered": _by(
        "storage/test_sqlite_moments.py::test_a_claim_in_the_transaction_of_a_commit_takes_what_that_wrote",
        (
            "            self.remember(claimed.instance.key, claimed.instance)",
            "            pass",
        ),
    ),
    "a renewed lease is not remembered": _by(
        "storage/test_sqlite_storage.py::test_a_claim_in_the_batch_of_another_write_sees_it",
        (
            (
                "                if connection.execute(_RENEW, (until_us, *_columns(key), "
                "owner, fence)).rowcount == 1\n"
                "            ),\n"
                "            then=self._contents.drop,"
            ),
            (
                "                if connection.execute(_RENEW, (until_us, *_columns(key), "
                "owner, fence)).rowcount == 1\n"
                "            ),\n"
                "            then=None,"
            ),
        ),
    ),
    "a released lease is remembered": _contract(
        "sqlite",
        "fences_only_grow",
        (
            (
                "lambda connection: self._contents.release(connection, owner, keys),\n"
                "            then=self._contents.drop,"
            ),
            ("lambda connection: self._contents.release(connection, owner, keys),\n            then=None,"),
        ),
    ),
    "a record is remembered without its new fence": _contract(
        "sqlite",
        "a_commit_without_a_lease_frees_the_record",
        (
            "self.remember(commit.key, after.replace(fence=fence))",
            "self.remember(commit.key, after)",
        ),
    ),
    "a commit that was written before is remembered anew": _by(
        "storage/test_sqlite_moments.py::test_a_lost_removal_is_known_when_it_is_sent_again",
        (
            ("        if not rows.written:\n            self.drop((commit.key,))\n        elif"),
            "        if",
        ),
    ),
    "a file that others write is remembered": _by(
        "storage/test_sqlite_storage.py::test_a_file_in_use_can_be_looked_at",
        (
            "_Contents(0 if read_only else cache_size, outbox_limit)",
            "_Contents(cache_size, outbox_limit)",
        ),
    ),
    "synchronous is normal by default": _by(
        "storage/test_sqlite_moments.py::test_a_commit_waits_for_the_disk_unless_it_is_told_not_to[unasked]",
        (
            'synchronous: Synchronous = "full"',
            'synchronous: Synchronous = "normal"',
        ),
    ),
}

# -- storage/sqlite_thread.py ----------------------------------------------------------------------

_THREAD: dict[str, _Found] = {
    "writes are answered before they are durable": _by(
        "storage/test_sqlite_storage.py::test_a_step_on_a_remembered_record_reads_nothing",
        (
            '        connection.execute("COMMIT")\n',
            (
                "        answer_all([(operation.caller, operation.outcome()) for operation in "
                "batch])\n"
                '        connection.execute("COMMIT")\n'
            ),
        ),
    ),
    "a failed batch is acknowledged": _by(
        "storage/test_sqlite_storage.py::"
        "test_a_failing_database_fails_commits_and_forgets_nothing_acknowledged",
        (
            ("            for operation in batch:\n                operation.fail(error)\n"),
            "",
        ),
    ),
    "only the first write of a failed batch hears of it": _by(
        "storage/test_sqlite_thread.py::test_a_full_disk_fails_the_batch_and_service_resumes",
        (
            ("            for operation in batch:\n                operation.fail(error)\n"),
            "            batch[0].fail(error)\n",
        ),
    ),
    "a connection is kept after a failed commit": _by(
        "storage/test_sqlite_storage.py::"
        "test_a_failing_database_fails_commits_and_forgets_nothing_acknowledged",
        (
            ("            self._give_up_connection()\n            for operation"),
            (
                "            if connection.in_transaction:\n"
                "                connection.execute('ROLLBACK')\n"
                "            self._contents.forget()\n"
                "            for operation"
            ),
        ),
        (
            "            self._transact(self._connected(), batch)\n",
            ("            connection = self._connected()\n            self._transact(connection, batch)\n"),
        ),
    ),
    "nothing is forgotten after a failed batch": _by(
        "storage/test_sqlite_storage.py::test_fences_go_on_after_a_failed_batch",
        (
            ("        self._disconnect()\n        self._contents.forget()\n"),
            "        self._disconnect()\n",
        ),
    ),
    "a refused write is not undone": _by(
        "storage/test_sqlite_storage.py::test_an_event_id_is_used_once",
        (
            '            connection.execute("ROLLBACK TO operation")\n',
            "            pass\n",
        ),
    ),
    "a refused write undoes the batch": _by(
        "storage/test_sqlite_thread.py::test_a_write_that_fails_is_undone_alone[error0]",
        (
            '            connection.execute("ROLLBACK TO operation")\n',
            (
                '            connection.execute("ROLLBACK")\n'
                '            connection.execute("BEGIN IMMEDIATE")\n'
                '            connection.execute("SAVEPOINT operation")\n'
            ),
        ),
    ),
    "a transaction begins with its first write": _by(
        "storage/test_sqlite_moments.py::test_a_transaction_keeps_other_writers_out_from_its_beginning",
        (
            '"BEGIN IMMEDIATE"',
            '"BEGIN DEFERRED"',
        ),
    ),
    "each write is on its own": _by(
        "storage/test_sqlite_thread.py::test_a_full_disk_fails_the_batch_and_service_resumes",
        (
            ("            self._attempt(connection, operation)\n        self._contents"),
            (
                "            self._attempt(connection, operation)\n"
                "            connection.execute('COMMIT')\n"
                "            connection.execute('BEGIN IMMEDIATE')\n"
                "        self._contents"
            ),
        ),
    ),
    "what follows a write comes before it is durable": _by(
        "storage/test_sqlite_thread.py::test_a_commit_that_fails_acknowledges_nothing",
        (
            '        connection.execute("RELEASE operation")\n',
            (
                '        connection.execute("RELEASE operation")\n'
                "        if operation.then is not None and operation.error is None:\n"
                "            operation.then(operation.value)\n"
                "            operation.then = None\n"
            ),
        ),
    ),
    "what follows a write comes although it was refused": _by(
        "storage/test_sqlite_thread.py::test_what_follows_a_write_comes_before_its_answer",
        (
            "if operation.then is not None and operation.error is None:",
            "if operation.then is not None:",
        ),
    ),
    "the batch's last words are not said": _by(
        "storage/test_sqlite_storage.py::test_the_outbox_drops_the_oldest",
        (
            "        self._contents.before_commit(connection)\n",
            "",
        ),
    ),
    "a write can be called off": _by(
        "storage/test_sqlite_thread.py::test_an_interrupted_write_is_waited_for",
        (
            "return self._ask(name, call, writes=True, then=then).uninterruptible()",
            "return self._ask(name, call, writes=True, then=then)",
        ),
    ),
    "every error of a write is its own": _by(
        "storage/test_sqlite_storage.py::"
        "test_a_failing_database_fails_commits_and_forgets_nothing_acknowledged",
        (
            ("            if _is_the_databases_fault(error):\n                raise\n"),
            "",
        ),
    ),
    "every error of a write is the database's": _by(
        "storage/test_sqlite_thread.py::test_a_write_that_fails_is_undone_alone[error0]",
        (
            (
                "            if _is_the_databases_fault(error):\n"
                "                raise\n"
                "            operation.fail(error)"
            ),
            "            raise",
        ),
    ),
    "a broken connection is kept by reads": _by(
        "storage/test_sqlite_thread.py::test_a_read_that_finds_the_database_broken_gets_a_new_connection",
        (
            (
                "                if _is_the_databases_fault(error):\n"
                "                    self._give_up_connection()\n"
            ),
            "",
        ),
    ),
    "the queue has no bound": _by(
        "storage/test_sqlite_thread.py::test_the_queue_is_bounded",
        (
            "if self._queue.qsize() >= self._queue_limit:",
            "if self._queue.qsize() < 0:",
        ),
    ),
    "a batch has no bound": _by(
        "storage/test_sqlite_thread.py::test_a_batch_is_bounded",
        (
            "if len(batch) == _MAX_BATCH:",
            "if len(batch) < 0:",
        ),
    ),
}

# -- storage/sqlite_file.py ------------------------------------------------------------------------

_FILE: dict[str, _Found] = {
    "no lock is taken": _by(
        "storage/test_sqlite_file.py::test_a_link_to_the_file_is_the_file",
        (
            "            _lock(descriptor)\n",
            "            pass\n",
        ),
    ),
    "a lock is shared": _by(
        "storage/test_sqlite_file.py::test_a_link_to_the_file_is_the_file",
        (
            "fcntl.LOCK_EX | fcntl.LOCK_NB",
            "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ),
    ),
    "a lock is let go of at once": _by(
        "storage/test_sqlite_file.py::test_a_link_to_the_file_is_the_file",
        (
            "        self._descriptor = descriptor\n",
            (
                "        self._descriptor = os.dup(descriptor)\n"
                "        os.close(descriptor)\n"
                "        _unlock(self._descriptor)\n"
            ),
        ),
    ),
    "full is normal": _by(
        "storage/test_sqlite_file.py::test_connections_have_our_settings[full-2]",
        (
            '"full": "PRAGMA synchronous = FULL"',
            '"full": "PRAGMA synchronous = NORMAL"',
        ),
    ),
    "full is off": _by(
        "storage/test_sqlite_file.py::test_connections_have_our_settings[full-2]",
        (
            '"full": "PRAGMA synchronous = FULL"',
            '"full": "PRAGMA synchronous = OFF"',
        ),
    ),
    "normal is off": _by(
        "storage/test_sqlite_file.py::test_connections_have_our_settings[normal-1]",
        (
            '"normal": "PRAGMA synchronous = NORMAL"',
            '"normal": "PRAGMA synchronous = OFF"',
        ),
    ),
    "no log is kept": _by(
        "storage/test_sqlite_storage.py::test_what_was_committed_is_there_when_the_file_is_opened_again",
        (
            '"PRAGMA journal_mode = WAL"',
            '"PRAGMA journal_mode"',
        ),
    ),
    "marks have no key": _by(
        "storage/test_sqlite_storage.py::test_statements_use_their_indexes",
        (
            ("PRIMARY KEY (kind, job, id, event_id)\n        ) STRICT, WITHOUT ROWID"),
            ("UNIQUE (kind, job, id, event_id, expires_us)\n        ) STRICT"),
        ),
    ),
    "a quarantined record wakes": _contract(
        "sqlite",
        "a_claim_refuses_what_is_not_due",
        (
            "CASE WHEN quarantined THEN NULL WHEN lease_owner",
            "CASE WHEN lease_owner",
        ),
    ),
    "a leased record wakes at its alarm": _by(
        "storage/test_sqlite_storage.py::test_a_new_process_takes_over_at_once",
        (
            "WHEN lease_owner IS NOT NULL THEN lease_until_us ELSE alarm_us END",
            "ELSE coalesce(alarm_us, lease_until_us) END",
        ),
    ),
    "an id is used again for another dead letter": _contract(
        "sqlite",
        "dead_letters_are_numbered_and_kept",
        (
            "number INTEGER PRIMARY KEY AUTOINCREMENT",
            "number INTEGER PRIMARY KEY",
        ),
    ),
    "a half lease can be stored": _by(
        "storage/test_sqlite_moments.py::test_half_a_lease_cannot_be_stored",
        (
            (",\n          CHECK ((lease_owner IS NULL) = (lease_until_us IS NULL))\n"),
            "\n",
        ),
    ),
    "a newer file is opened": _by(
        "storage/test_sqlite_file.py::test_a_file_that_is_not_for_us_is_left_alone"
        "[_newer-written by a newer durable-effect (schema 3, this one knows 2)]",
        (
            "if version > len(self._migrations):",
            "if version > 1000:",
        ),
    ),
    "a failed migration stays": _by(
        "storage/test_sqlite_file.py::test_a_migration_that_fails_changes_nothing",
        (
            ('        connection.execute("BEGIN IMMEDIATE")\n        try:\n            for statements'),
            ('        connection.execute("SELECT 1")\n        try:\n            for statements'),
        ),
        (
            ('            connection.execute("COMMIT")\n        except'),
            ("            pass\n        except"),
        ),
    ),
}

# -- storage/memory.py -----------------------------------------------------------------------------

_MEMORY: dict[str, _Found] = {
    "a commit does not compare the fence": _contract(
        "memory",
        "a_lease_that_is_over_is_recovered_and_counted",
        (
            "        and stored.fence == before.fence\n",
            "",
        ),
    ),
    "a commit does not compare the revision": _contract(
        "memory",
        "a_stale_commit_changes_nothing",
        (
            "        and stored.revision == before.revision\n",
            "",
        ),
    ),
    "a commit does not compare the incarnation": _contract(
        "memory",
        "an_id_that_is_used_again_is_another_instance",
        (
            ("        stored.incarnation == before.incarnation\n        and "),
            "        ",
        ),
    ),
    "a commit is a birth or an update as it likes": _by(
        "storage/test_sent_again.py::test_a_step_before_the_last_one_is_refused[memory]",
        (
            "        return stored is before\n",
            "        return True\n",
        ),
    ),
    "a commit that is sent again is written again": _by(
        "storage/test_sent_again.py::test_a_step_that_leaves_the_record_happens_once[memory]",
        (
            "if row is not None and row.token == commit.token:",
            "if row is None and commit.token == '':",
        ),
    ),
    "a commit that is sent again learns the fence of another run": _contract(
        "memory",
        "a_commit_that_is_sent_again_learns_no_fence_of_another",
        (
            "return Effect.succeed(row.answered)",
            "return Effect.succeed(row.record.fence)",
        ),
    ),
    "no receipt of removals": _by(
        "storage/test_memory_storage.py::test_what_was_removed_takes_no_room_after_an_hour",
        (
            "        self._receipts.add(commit.token, expires_us)\n",
            "",
        ),
    ),
    "no receipt of the write before a removal": _by(
        "storage/test_memory_storage.py::test_what_was_removed_takes_no_room_after_an_hour",
        (
            "        self._receipts.add(row.token, expires_us)\n",
            "",
        ),
    ),
    "receipts are not looked at": _by(
        "storage/test_sent_again.py::test_a_step_that_was_the_last_before_the_removal_is_known[memory]",
        (
            ("        if self._receipts.knows(commit.token):\n            return Effect.succeed(0)\n"),
            "",
        ),
    ),
    "receipts are forgotten at once": _by(
        "storage/test_memory_storage.py::test_what_was_removed_takes_no_room_after_an_hour",
        (
            "_RECEIPT_US = 3_600_000_000",
            "_RECEIPT_US = 0",
        ),
    ),
    "receipts stay": _by(
        "storage/test_memory_storage.py::test_what_was_removed_takes_no_room_after_an_hour",
        (
            "        self._receipts.forget_expired(at_us)\n",
            "",
        ),
    ),
    "a renewal does not compare the fence": _contract(
        "memory",
        "a_lease_is_renewed_by_its_holder",
        (
            "row.record.fence != fence or not",
            "not",
        ),
    ),
    "a renewal does not compare the owner": _contract(
        "memory",
        "a_lease_is_renewed_by_its_holder",
        (
            "row.record.fence != fence or not _is_leased_by(row.record, lease.owner)",
            "row.record.fence != fence or row.record.lease is None",
        ),
    ),
    "a renewal does nothing": _contract(
        "memory",
        "a_lease_decides_when_an_instance_wakes",
        (
            (
                "        self._job_of(row.record).replace(row, attrs.evolve(row.record, "
                "lease=lease))\n"
                "        return True"
            ),
            "        return True",
        ),
    ),
    "a release does not compare the owner": _contract(
        "memory",
        "a_release_gives_leases_back",
        (
            "            if _is_leased_by(row.record, owner):\n",
            "            if row.record.lease is not None:\n",
        ),
    ),
    "a release keeps the fence": _contract(
        "memory",
        "fences_only_grow",
        (
            "lease=None, fence=self._next_fence())",
            "lease=None)",
        ),
    ),
    "a claim ignores a live lease": _by(
        "storage/test_memory_storage.py::test_take_over_ends_every_lease",
        (
            ("        wake_at = record.wake_at\n        if wake_at is None or wake_at > claim.now"),
            (
                "        wake_at = attrs.evolve(record, lease=None).wake_at\n"
                "        if wake_at is None or wake_at > claim.now"
            ),
        ),
    ),
    "a claim ignores quarantine": _by(
        "storage/test_memory_storage.py::test_wakes_when_the_record_says",
        (
            ("        wake_at = record.wake_at\n        if wake_at is None or wake_at > claim.now"),
            (
                "        wake_at = attrs.evolve(record, quarantined=False).wake_at\n"
                "        if wake_at is None or wake_at > claim.now"
            ),
        ),
    ),
    "a claim comes a moment late": _by(
        "storage/test_memory_storage.py::test_take_over_ends_every_lease",
        (
            "wake_at is None or wake_at > claim.now",
            "wake_at is None or wake_at >= claim.now",
        ),
    ),
    "a claim ignores the alarm": _by(
        "storage/test_memory_storage.py::test_wakes_when_the_record_says",
        (
            "wake_at is None or wake_at > claim.now",
            "wake_at is None",
        ),
    ),
    "a claim clears the alarm": _contract(
        "memory",
        "nothing_happens_until_it_is_run",
        (
            ("            lease=Lease(claim.owner, claim.until),\n            fence"),
            (
                "            lease=Lease(claim.owner, claim.until),\n"
                "            alarm=None,\n"
                "            fence"
            ),
        ),
    ),
    "a claim keeps the fence": _contract(
        "memory",
        "a_claim_takes_what_is_due",
        (
            ("            fence=self._next_fence(),\n            crashes"),
            "            crashes",
        ),
    ),
    "a claim of what a crash left keeps the fence": _contract(
        "memory",
        "a_lease_that_is_over_is_recovered_and_counted",
        (
            ("            fence=self._next_fence(),\n            crashes"),
            ("            fence=record.fence if recovered else self._next_fence(),\n            crashes"),
        ),
    ),
    "a claim counts no crash": _by(
        "storage/test_memory_storage.py::test_take_over_ends_every_lease",
        (
            "crashes=record.crashes + recovered",
            "crashes=record.crashes",
        ),
    ),
    "a claim counts its own old lease as a crash": _contract(
        "memory",
        "a_lease_that_is_over_is_recovered_and_counted",
        (
            "record.lease is not None and record.lease.owner != claim.owner",
            "record.lease is not None",
        ),
    ),
    "a commit leaves the lease": _contract(
        "memory",
        "a_commit_without_a_lease_frees_the_record",
        (
            "        record = after if after.fence == fence",
            (
                "        if after.lease is None and row is not None:\n"
                "            after = attrs.evolve(after, lease=row.record.lease)\n"
                "        record = after if after.fence == fence"
            ),
        ),
    ),
    "a commit keeps the old alarm": _contract(
        "memory",
        "a_commit_replaces_the_record",
        (
            ("            job.replace(row, record)\n        return fence"),
            (
                "            job.replace(row, attrs.evolve(record, alarm=row.record.alarm or "
                "record.alarm))\n"
                "        return fence"
            ),
        ),
    ),
    "a commit with a lease keeps the fence": _contract(
        "memory",
        "fences_only_grow",
        (
            (
                "        if after.lease is not None:\n"
                "            fence = self._next_fence()\n"
                "        else:\n"
                "            fence"
            ),
            "        fence",
        ),
        (
            "fence = 0 if commit.before is None else commit.before.fence",
            "fence = 0 if commit.before is None else commit.before.fence",
        ),
    ),
    "a commit without a lease loses its fence": _contract(
        "memory",
        "a_commit_without_a_lease_frees_the_record",
        (
            "fence = 0 if commit.before is None else commit.before.fence",
            "fence = 0",
        ),
    ),
    "fences begin anew with each removal": _contract(
        "memory",
        "fences_only_grow",
        (
            "        job.remove(commit.key.id)\n",
            ("        job.remove(commit.key.id)\n        self._fence = 0\n"),
        ),
    ),
    "a mark is not unique": _by(
        "storage/test_memory_storage.py::test_is_ready_at_once",
        (
            "        if mark is not None and self._marks.holds",
            "        if mark is None and self._marks.holds",
        ),
    ),
    "a mark is written although the record conflicted": _contract(
        "memory",
        "a_stale_commit_changes_nothing",
        (
            ("            return Effect.fail(Conflict(commit.key))\n        if commit.replays"),
            (
                "            if commit.mark is not None:\n"
                "                self._marks.add((commit.key, commit.mark.event_id), "
                "to_micros(commit.mark.expires_at))\n"
                "            return Effect.fail(Conflict(commit.key))\n"
                "        if commit.replays"
            ),
        ),
    ),
    "a mark is remembered a moment longer": _contract(
        "memory",
        "a_duplicate_event_changes_nothing",
        (
            "return self._until.get(what, now_us) > now_us",
            "return self._until.get(what, now_us - 1) >= now_us",
        ),
    ),
    "no mark is written": _contract(
        "memory",
        "a_commit_may_have_no_record_at_all",
        (
            (
                "            self._marks.add((commit.key, commit.mark.event_id), "
                "to_micros(commit.mark.expires_at))\n"
            ),
            "            pass\n",
        ),
    ),
    "expired marks stay": _by(
        "storage/test_sent_again.py::test_marks_that_are_over_take_no_room[memory]",
        (
            "        self._marks.forget_expired(at_us)\n",
            "",
        ),
    ),
    "a mark that was made anew is removed early": _contract(
        "memory",
        "marks_are_remembered_until_they_expire",
        (
            (
                "            if self._until.get(what) == expires_us:  # not added anew "
                "meanwhile\n"
                "                del self._until[what]"
            ),
            "            self._until.pop(what, None)",
        ),
    ),
    "marks are removed early": _by(
        "storage/test_memory_storage.py::test_what_was_removed_takes_no_room_after_an_hour",
        (
            (
                "            if not self._expiry or self._expiry[0][0] > now_us:\n"
                "                return\n"
                "            expires_us, what"
            ),
            ("            if not self._expiry:\n                return\n            expires_us, what"),
        ),
    ),
    "no events are written": _by(
        "storage/test_memory_storage.py::test_the_outbox_drops_the_oldest",
        (
            "            self._outbox[event.event_id] = event\n",
            "            pass\n",
        ),
    ),
    "events are written although the record conflicted": _contract(
        "memory",
        "a_stale_commit_changes_nothing",
        (
            ("            return Effect.fail(Conflict(commit.key))\n        if commit.replays"),
            (
                "            self._outbox.update((event.event_id, event) for event in "
                "commit.events)\n"
                "            return Effect.fail(Conflict(commit.key))\n"
                "        if commit.replays"
            ),
        ),
    ),
    "no dead letter is written": _by(
        "storage/test_sent_again.py::test_a_step_that_leaves_the_record_happens_once[memory]",
        (
            "            self._letters.add(commit.dead_letter)\n",
            "            pass\n",
        ),
    ),
    "a dead letter is brought back twice": _contract(
        "memory",
        "a_dead_letter_is_brought_back_once",
        (
            (
                "        if commit.replays is not None and not "
                "self._letters.has(commit.replays):\n"
                "            return Effect.fail(Conflict(commit.key))\n"
            ),
            "",
        ),
    ),
    "a dead letter stays when it is brought back": _contract(
        "memory",
        "a_commit_that_is_sent_again_happens_once",
        (
            "            self._letters.remove(commit.replays)\n",
            "            pass\n",
        ),
    ),
    "expired dead letters stay": _contract(
        "memory",
        "expired_dead_letters_go_with_later_commits",
        (
            "        self._letters.forget_expired(at_us)\n",
            "",
        ),
    ),
    "due has no order": _contract(
        "memory",
        "due_is_ordered_and_bounded",
        (
            "for _, kind, job, its_id in sorted(found)[:limit]",
            "for _, kind, job, its_id in found[:limit]",
        ),
    ),
    "due has no limit": _contract(
        "memory",
        "due_is_ordered_and_bounded",
        (
            "in sorted(found)[:limit]",
            "in sorted(found)",
        ),
    ),
    "due comes a moment late": _by(
        "storage/test_memory_storage.py::test_many_alarms_are_found_in_order",
        (
            "lambda entry: entry[0] <= now_us",
            "lambda entry: entry[0] < now_us",
        ),
    ),
    "due knows no suspects": _by(
        "storage/test_memory_storage.py::test_wakes_when_the_record_says",
        (
            ("record.crashes > 0)\n            for _"),
            ("record.crashes > 1)\n            for _"),
        ),
    ),
    "the next alarm is one that is due": _by(
        "storage/test_memory_storage.py::test_wakes_when_the_record_says",
        (
            "if at > after_us), None)",
            "if at >= after_us), None)",
        ),
    ),
    "a wake-up that was moved still holds": _by(
        "storage/test_memory_storage.py::test_alarms_that_move_take_no_more_room_than_those_that_stay",
        (
            "return self._at.get(entry[1]) == entry[0]",
            "return entry[1] in self._at",
        ),
    ),
    "the outbox drops the newest": _by(
        "storage/test_memory_storage.py::test_the_outbox_drops_the_oldest",
        (
            "self._outbox.popitem(last=False)",
            "self._outbox.popitem(last=True)",
        ),
    ),
    "the outbox has no bound": _by(
        "storage/test_memory_storage.py::test_the_outbox_drops_the_oldest",
        (
            "while len(self._outbox) > self._outbox_limit:",
            "while len(self._outbox) > 1 << 60:",
        ),
    ),
    "leases outlive their process": _by(
        "storage/test_memory_storage.py::test_take_over_ends_every_lease",
        (
            "                if lease is not None and lease.until > now:",
            "                if lease is not None and lease.until < now:",
        ),
    ),
}

# -- interpreter.py --------------------------------------------------------------------------------

_INTERPRETER: dict[str, _Found] = {
    "a call is answered before its commit": _by(
        "jobs/test_faulty_storage.py::test_a_call_says_that_the_storage_failed[commit]",
        (
            ("written = yield from _written(registry, command, step, turn, worker).uninterruptible()"),
            ("written = yield from _written(registry, command, step, turn, worker).fork_detach().as_(True)"),
        ),
    ),
    "a conflict is a success": _by(
        "jobs/test_one_at_a_time.py::test_a_terminate_waits_for_no_handler",
        (
            ("        return Effect.succeed(None)\n    if isinstance(error, DuplicateEventError):"),
            ("        return Effect.succeed(0)\n    if isinstance(error, DuplicateEventError):"),
        ),
    ),
    "a commit is sent again under a new token": _by(
        "jobs/test_faulty_storage.py::test_a_commit_whose_fate_is_unknown_is_sent_again[the answer-1]",
        (
            "        answer = yield from storage.commit(commit).catch_all",
            (
                "        token = yield from Random.uuid7()\n"
                "        commit = attrs.evolve(commit, token=token.hex)\n"
                "        answer = yield from storage.commit(commit).catch_all"
            ),
        ),
    ),
    "a commit is not sent again": _by(
        "jobs/test_faulty_storage.py::test_a_commit_whose_fate_is_unknown_is_sent_again[the answer-1]",
        (
            "    for wait in resends:\n",
            "    for wait in resends[:0]:\n",
        ),
    ),
    "a commit that failed for good is a success": _by(
        "jobs/test_faulty_storage.py::test_a_batch_is_flushed_when_the_storage_is_back[commit-refuses]",
        (
            ("    return (yield from Effect.fail(error))\n\n\ndef _wake"),
            ("    return 0\n\n\ndef _wake"),
        ),
    ),
    "a conflict after a commit was sent again is a success": _by(
        "jobs/test_runs_given_back.py::test_a_commit_that_somebody_forestalled_is_not_acknowledged",
        (
            "        if not isinstance(answer, StorageError) or",
            (
                "        if isinstance(answer, Conflict):\n"
                "            return 0\n"
                "        if not isinstance(answer, StorageError) or"
            ),
        ),
    ),
    "a mark is not looked for": _by(
        "jobs/test_faulty_storage.py::test_a_call_says_that_the_storage_failed[is_marked]",
        (
            (
                "if command.event_id is not None and (yield from storage.is_marked(key, "
                "command.event_id, now)):"
            ),
            ("if command.event_id == '' and (yield from storage.is_marked(key, command.event_id, now)):"),
        ),
    ),
    "a step's mark is not written": _by(
        "jobs/test_one_at_a_time.py::test_one_of_two_equal_events_at_the_same_time_is_the_repeat",
        (
            "        mark=step.mark,\n",
            "",
        ),
    ),
    "a step's dead letter is not written": _by(
        "jobs/test_runs_given_back.py::test_what_is_purged_is_kept_as_a_dead_letter_of_the_same_write",
        (
            "        dead_letter=step.dead_letter,\n",
            "",
        ),
    ),
    "a step's events are not written": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            "        events=tuple(stamped),\n",
            "",
        ),
    ),
    "the lease of an interrupted run stays": _by(
        "jobs/test_runs_given_back.py::test_a_call_that_is_called_off_gives_its_run_to_the_alarms",
        (
            "    step = yield from ran.on_error(lambda _: _give_back(held, worker))\n",
            "    step = yield from ran\n",
        ),
    ),
    "the lease of a run that was not committed stays": _by(
        "jobs/test_faulty_storage.py::test_a_batch_is_flushed_when_the_storage_is_back[commit-refuses]",
        (
            ("    if (yield from commit.on_error(lambda _: _give_back(held, worker))) is None:"),
            "    if (yield from commit) is None:",
        ),
    ),
    "a run begins without a lease": _by(
        "jobs/test_leases.py::TestPreemption::test_the_caller_whose_own_run_is_ended",
        (
            'leased = cast("Instance", step.after).replace(lease=lease)',
            'leased = cast("Instance", step.after)',
        ),
    ),
    "nothing is quarantined": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            ("    if held.crashes >= registry.limits.quarantine_after:\n        return _quarantine"),
            ("    if held.crashes >= 1_000:\n        return _quarantine"),
        ),
    ),
    "everything is quarantined a death early": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            ("    if held.crashes >= registry.limits.quarantine_after:\n        return _quarantine"),
            ("    if held.crashes + 1 >= registry.limits.quarantine_after:\n        return _quarantine"),
        ),
    ),
    "what is quarantined runs when it is called": _by(
        "jobs/test_leases.py::TestCrashes::test_what_is_quarantined_keeps_its_state_and_can_be_ended",
        (
            (
                "    banned = after is not None and (after.quarantined or after.crashes >= "
                "registry.limits.quarantine_after)"
            ),
            "    banned = after is not None and after.crashes < 0",
        ),
    ),
    "what keeps dying is not put off": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            ("    if held.crashes < 2:\n        return None\n    part"),
            ("    if held.crashes < 99:\n        return None\n    part"),
        ),
    ),
    "a suspect runs beside others": _by(
        "jobs/test_leases.py::TestCrashes::test_suspects_run_alone",
        (
            "    if not held.is_due(now) or (held.crashes and not alone):",
            "    if not held.is_due(now):",
        ),
    ),
    "deaths are never forgiven": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_ends_well_clears_the_count",
        (
            "        step = attrs.evolve(step, after=step.after.replace(crashes=0))\n",
            "        pass\n",
        ),
    ),
    "a claim that may have happened is left": _by(
        "jobs/test_runs_given_back.py::test_a_claim_whose_answer_was_lost_is_given_back",
        (
            "claimed = yield from claim.on_error(lambda _: _release(key, worker))",
            "claimed = yield from claim",
        ),
    ),
    "a run that is in progress elsewhere is not waited for": _by(
        "jobs/test_leases.py::"
        "TestLostLeases::test_a_call_waits_for_another_process_and_gives_up_with_nothing_changed",
        (
            (
                "        if worker.holds(before) or (before.lease.owner != worker.owner and "
                "before.lease.until > now):\n"
                "            return _Busy()\n"
            ),
            "",
        ),
    ),
    "a call waits for another process for ever": _by(
        "jobs/test_leases.py::"
        "TestLostLeases::test_a_call_waits_for_another_process_and_gives_up_with_nothing_changed",
        (
            "        if now - began >= registry.limits.call_timeout:",
            "        if now - began >= registry.limits.call_timeout * 100:",
        ),
    ),
    "a conflict is given up": _by(
        "jobs/test_one_at_a_time.py::test_a_terminate_waits_for_no_handler",
        (
            "while command.preempts or conflicts < _MOST_CONFLICTS:",
            "while command.preempts or conflicts < 1:",
        ),
    ),
    "a death that a call finds is not counted": _by(
        "jobs/test_leases.py::TestCrashes::test_events_after_each_crash_do_not_keep_it_from_quarantine",
        (
            "before.crashes + died",
            "before.crashes",
        ),
    ),
    "a run is committed over its own termination": _by(
        "jobs/test_leases.py::TestPreemption::test_terminate_during_a_hung_run",
        (
            "        yield from worker.preempt(step.before)\n",
            "        pass\n",
        ),
    ),
    "an event brings back what was ended meanwhile": _by(
        "jobs/test_leases.py::TestCrashes::test_events_after_each_crash_do_not_keep_it_from_quarantine",
        (
            ("    if (\n        known is not None\n        and"),
            ("    if (\n        known is None\n        and"),
        ),
    ),
    "nobody is told of an alarm": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            ("    return Effect.service(Alarms).flat_map(lambda alarms: alarms.wake(key, alarm.at))"),
            "    return Effect.void",
        ),
    ),
}

# -- engine.py -------------------------------------------------------------------------------------

_ENGINE: dict[str, _Found] = {
    "terminate waits for the run": _by(
        "jobs/test_leases.py::TestPreemption::test_terminate_during_a_hung_run",
        (
            "            if command.preempts:\n",
            "            if command.preempts is None:\n",
        ),
    ),
    "a run that lost its lease goes on": _by(
        "jobs/test_leases.py::TestLostLeases::test_a_run_that_lost_its_lease_is_called_off",
        (
            "                yield from self._call_off(key)\n",
            "                pass\n",
        ),
    ),
    "a run that was called off is committed": _by(
        "jobs/test_leases.py::TestLostLeases::test_a_run_that_lost_its_lease_is_called_off",
        (
            "            yield from entry.fiber.interrupt_fork()\n",
            "            pass\n",
        ),
    ),
    "the run of an ended instance is left alone": _by(
        "jobs/test_runs_given_back.py::test_a_termination_calls_its_run_off",
        (
            "        yield from self._call_off(ended.key)\n",
            "",
        ),
    ),
    "leases are not renewed": _by(
        "jobs/test_leases.py::TestLostLeases::test_a_long_run_keeps_its_lease",
        (
            "            if self._held:\n",
            "            if self._held is None:\n",
        ),
    ),
    "leases are renewed too late": _by(
        "jobs/test_leases.py::TestLostLeases::test_a_long_run_keeps_its_lease",
        (
            "if began - entry.renewed_at >= lease / 3}",
            "if began - entry.renewed_at >= lease * 2}",
        ),
    ),
    "leases stay when a process closes": _by(
        "jobs/test_runs_given_back.py::test_a_run_that_outlives_its_process_is_fenced_off",
        (
            (
                "        yield from self.storage.release(self.owner).ignore()  # what could "
                "not be interrupted is fenced off\n"
            ),
            "",
        ),
    ),
    "a process has the same name after each start": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            "engine = Engine(registry, storage, env, owner=owner.hex, polls=polls)",
            "engine = Engine(registry, storage, env, owner='engine', polls=polls)",
        ),
    ),
    "suspects run beside others": _by(
        "jobs/test_leases.py::TestCrashes::test_suspects_run_alone",
        (
            ("            if due.suspect:\n                return self._admission.alone"),
            ("            if due.suspect is None:\n                return self._admission.alone"),
        ),
    ),
    "calls on suspects run beside others": _by(
        "jobs/test_runs_given_back.py::test_a_call_that_runs_a_suspect_waits_until_nothing_runs_beside_it",
        (
            ("return self._admission.alone(run, _ALWAYS) if suspect else self._admission.together(run)"),
            "return self._admission.together(run)",
        ),
    ),
    "steps of one instance overlap": _by(
        "jobs/test_leases.py::TestBounds::test_a_full_queue_of_one_instance",
        (
            (
                "        in_turn = turnstile.enter(place, self.registry.limits.max_waiting, "
                "patience).and_then(effect)\n"
            ),
            (
                "        in_turn = turnstile.enter(place, self.registry.limits.max_waiting, "
                "patience).fork_detach().and_then(effect)\n"
            ),
        ),
    ),
    "calls are accepted after the end": _by(
        "jobs/test_runs_given_back.py::test_a_connection_that_was_closed_takes_no_calls",
        (
            "            if self._closed and not around.keys:",
            "            if self._closed is None and not around.keys:",
        ),
    ),
    "closing waits for nothing": _by(
        "jobs/test_connect.py::TestAnyStorage::test_the_end_waits_for_running_handlers[memory]",
        (
            ("            yield from idle.timeout_option(self.registry.limits.drain_timeout)\n"),
            "",
        ),
    ),
    "calls have no bound": _by(
        "jobs/test_leases.py::TestBounds::test_too_many_calls_at_once",
        (
            "            if self._calls >= limit:",
            "            if self._calls >= limit * 1_000:",
        ),
    ),
    "all alarms run at once": _by(
        "jobs/test_runs_given_back.py::test_alarms_run_no_more_at_a_time_than_they_may",
        (
            "        room = self.registry.limits.concurrency - busy\n",
            "        room = 1_000\n",
        ),
    ),
    "the loop does not wait for the next alarm": _by(
        "jobs/test_leases.py::TestCrashes::test_a_run_that_keeps_dying_is_put_off_and_then_quarantined",
        (
            "            following = yield from self.storage.next_due(jobs, after=now)\n",
            "            following = None\n",
        ),
    ),
}

# -- task.py ---------------------------------------------------------------------------------------

_TASK: dict[str, _Found] = {
    "the state of a failed attempt is kept": _by(
        "jobs/test_retry.py::TestTask::test_a_failed_execution_is_retried",
        (
            "            return self._failed(before, turn, ended, now, roll)\n",
            ("            return self._failed(before.replace(state=plan.encoded), turn, ended, now, roll)\n"),
        ),
    ),
    "the state of an event whose handler failed is kept": _by(
        "jobs/test_one_at_a_time.py::test_a_refused_call_to_oneself_fails_a_handler_that_lets_it",
        (
            (
                "        if isinstance(ended, Failed):\n"
                "            return (yield from Effect.fail(execution_error(turn, ended)))\n"
            ),
            "",
        ),
    ),
    "an event is not marked": _by(
        "jobs/test_one_at_a_time.py::test_one_of_two_equal_events_at_the_same_time_is_the_repeat",
        (
            "return None if self.event_id is None else Mark(",
            "return None if True else Mark(",
        ),
    ),
}

# -- failure.py ------------------------------------------------------------------------------------

_FAILURE: dict[str, _Found] = {
    "an attempt is not counted": _by(
        "jobs/test_leases.py::TestKeysForOthers::test_keys_and_fences_of_runs",
        (
            "            failed_attempts=attempt,\n",
            "            failed_attempts=attempt - 1,\n",
        ),
    ),
    "what is purged leaves no dead letter": _by(
        "jobs/test_runs_given_back.py::test_what_is_purged_is_kept_as_a_dead_letter_of_the_same_write",
        (
            "        dead_letter=_dead_letter(stopped, turn, verdict),\n",
            "",
        ),
    ),
    "a retry has no alarm": _by(
        "jobs/test_leases.py::TestKeysForOthers::test_keys_and_fences_of_runs",
        (
            '            alarm=Alarm(verdict.at, "retry"),\n',
            "            alarm=None,\n",
        ),
    ),
}

# -- instance.py -----------------------------------------------------------------------------------

_INSTANCE: dict[str, _Found] = {
    "what is quarantined wakes": _contract(
        "memory",
        "a_claim_refuses_what_is_not_due",
        (
            ("        if self.quarantined:\n            return None\n        if self.lease"),
            "        if self.lease",
        ),
    ),
    "what is leased wakes at its alarm": _by(
        "storage/test_memory_storage.py::test_take_over_ends_every_lease",
        (
            ("        if self.lease is not None:\n            return self.lease.until\n"),
            "",
        ),
    ),
}

MUTANTS = [
    *_in("storage/sqlite.py", _SQLITE),
    *_in("storage/sqlite_thread.py", _THREAD),
    *_in("storage/sqlite_file.py", _FILE),
    *_in("storage/memory.py", _MEMORY),
    *_in("interpreter.py", _INTERPRETER),
    *_in("engine.py", _ENGINE),
    *_in("task.py", _TASK),
    *_in("failure.py", _FAILURE),
    *_in("instance.py", _INSTANCE),
]
