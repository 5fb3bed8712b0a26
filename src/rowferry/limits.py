"""Every constant that bounds something, with its unit and its reason."""

from __future__ import annotations

import os

MIB = 1 << 20

#: Bytes of source data that a chunk aims at. Small enough that a redone chunk costs well
#: under a second, large enough that its COMMIT (1–8 ms) and the start of its read are noise: between two
#: PostgreSQL on two cores 40 MiB took 5 % less time and CPU than 16, and 64 no less than 40.
#: ROWFERRY_CHUNK_BYTES is for tests that need many chunks of little data.
CHUNK_BYTES = int(os.environ.get("ROWFERRY_CHUNK_BYTES", 40 * MIB))
#: A table smaller than a chunk is shared out among the workers in parts no smaller than that: LOAD DATA of so many
#: bytes keeps MariaDB busy for 0.2 s, a chunk's transaction and bookkeeping for 0.01.
CHUNK_BYTES_MIN = min(CHUNK_BYTES, 8 * MIB)
#: Rows that a chunk into DuckDB holds at least: two row groups of 122,880; smaller commits go
#: through its write-ahead log and cost up to 2× (measured).
DUCKDB_CHUNK_ROWS_MIN = 2 * 122_880 if CHUNK_BYTES >= MIB else 0
#: Chunks of one table at the most: the ledger's rows are read into memory on resume.
CHUNKS_PER_TABLE_MAX = 100_000

#: Bytes of Arrow data in one batch: a few of them stay in the last-level cache.
BATCH_BYTES = 1 * MIB
#: The first batch of a chunk, which the target is waiting for; the next ones double up to the usual size.
FIRST_BATCH_BYTES = 128 * 1024
#: Rows in one batch at the most, so that tables of narrow rows do not make endless ones.
BATCH_ROWS_MAX = 65_536
#: Bytes that may wait between a worker's reader and its writer.
QUEUE_BYTES = 4 * MIB
#: Bytes of a further table's rows that wait in memory until the rows of their chunk's own table are written.
SPOOL_BYTES = 4 * MIB
#: Bytes of source batches that are put together at the most for a transform whose calls have a fixed cost.
STAGE_BYTES = 4 * MIB
#: Bytes of one read off a server's socket.
SOCKET_READ_BYTES = 256 * 1024

#: Largest single cell that is carried (a PostgreSQL field's own limit is 1 GiB).
CELL_BYTES_MAX = (1 << 30) - 1

#: Tries of a chunk before its job stops, and the bounds of the wait between them (seconds,
#: exponential with full jitter). Covers a server restart of about half a minute.
CHUNK_TRIES = 8
RETRY_WAIT_MIN_S = 0.2
RETRY_WAIT_MAX_S = 8.0

#: How long a job's lock is waited for: after kill -9 a server needs a moment to end the dead
#: process's session, above all in mid-statement (PostgreSQL looks every second, see its session.py).
LOCK_PATIENCE_S = 4.0
#: After a request to stop: how long what runs may end by itself, before connections are cut under it,
#: and how long a thread that does not end even then is waited for.
STOP_GRACE_S = 2.0
STOP_PATIENCE_S = 6.0
#: How long a reader that is not needed any more may take to its next batch, before it is cut.
READER_GRACE_S = 2.0

#: How often a worker looks again while others still hold the last chunks (seconds).
CLAIM_POLL_S = 0.2
#: After how long such a wait is said: well above a chunk's usual time, so that a small copy is quiet.
IDLE_SAID_AFTER_S = 5.0

#: Buckets of a verification: count + 128-bit sum each, so 98 KiB a side and thread.
VERIFY_BUCKETS = 4096
#: Rows of differing buckets held at once while they are narrowed to keys (about 150 bytes each).
VERIFY_ROWS_HELD = 500_000
#: Differing rows that are named by default.
VERIFY_ROWS_NAMED = 20

#: PostgreSQL truncates longer identifiers with only a NOTICE (NAMEDATALEN − 1).
POSTGRES_NAME_BYTES_MAX = 63
#: MySQL's and MariaDB's longest identifier; they refuse longer ones.
MYSQL_NAME_CHARACTERS_MAX = 64
#: Digits of their DECIMAL.
MYSQL_DECIMAL_DIGITS_MAX = 65

#: DuckDB's own memory beside ours, as source or target (its SQL setting ``memory_limit``).
DUCKDB_MEMORY = "192MB"
#: The most that DuckDB's own buffers may take in one worker's transform. The values that an expression makes are
#: not among them (measured: repeat() made 3 GB of text under it); over short values all together is a few MB.
EXPRESSION_MEMORY = "1GB"

#: A pipe sees the sum at most this often (seconds), and at most so many lines about retries.
PROGRESS_EVERY_S = 5.0
RETRY_LINES_MAX = 50

#: How often the signals of --pause-while are asked for, how long an answer may take (the server ends the query,
#: and a little later the connection is cut), and after how long an answer counts as none, for a server or a
#: machine that is too busy to give one. Seconds.
SIGNAL_EVERY_S = 2.0
SIGNAL_TIMEOUT_S = 5.0
SIGNAL_STALE_S = 15.0
#: Signals of one job: each has a connection of its own.
SIGNALS_MAX = 16
#: How long a paused worker holds a chunk that is half way, with its open transaction, before it gives it back
#: and waits without one (seconds). It doubles each time for the same chunk, up to the last number, so that a
#: chunk that takes longer than the time between two pauses gets through as well; a stalled connection of
#: MySQL lives an hour.
PAUSE_HOLD_S = 30.0
PAUSE_HOLD_MAX_S = 1_800.0
#: How long a job stays paused before it stops (--max-pause-s), and how long for a signal that cannot be read at all:
#: a restart takes half a minute, and what is gone for longer needs somebody to look at it.
PAUSE_MAX_S = 21_600.0
PAUSE_UNREAD_MAX_S = 600.0
#: A pause is said again after so long (seconds).
PAUSE_SAID_EVERY_S = 60.0
#: How often a paused worker looks whether it may go on (seconds).
PAUSE_POLL_S = 0.1

#: A batch under a rate limit is cut into what may pass in this time (seconds): even, and few enough pieces.
PACE_PIECE_S = 0.25
#: How much unused time may be made up for under a rate limit (seconds): what a busy machine sleeps too long.
PACE_CREDIT_S = 0.1
#: Chunks under a rate limit take about this long at the most (seconds): their transaction is open meanwhile, and
#: what a pause or an error undoes is paid for again.
PACE_CHUNK_S = 30.0
PACE_CHUNK_BYTES_MIN = 64 * 1024
#: The longest wait before one batch (seconds), however large its rows: the connections are stalled meanwhile.
PACE_WAIT_MAX_S = 600.0

#: Failures of chunks within the window (seconds) after which a job stops where nothing else was asked for and more
#: chunks failed than landed: half of what all workers have when each tries one chunk for the last time.
BREAKER_WINDOW_S = 60.0
BREAKER_ERRORS_MIN = 50
BREAKER_ERRORS_PER_WORKER = 4

#: Rows that a copy with --on-error quarantine sets aside before it stops: a few bad rows are data to be mended, more
#: are mostly one cause (a wrong type, a rule of the target), which finding row by row (up to 2 log2 n trial loads
#: for each) would only take long to show.
QUARANTINED_MAX = 1000
#: Bytes of one chunk's rows that are set aside, as the texts in which they are kept until its COMMIT.
QUARANTINED_BYTES_MAX = 256 * MIB
#: Trial loads within one chunk: QUARANTINED_MAX rows of a chunk of a million, twice over.
BISECT_TRIES_MAX = 100_000
#: Bytes of a chunk's rows on disk while the refused ones are looked for: a hundred usual chunks.
SPOOL_BYTES_MAX = 4 << 30
#: Rows of the quarantine that are sent again in one transaction.
RETRY_ROWS = 500

#: Memory of the key sets of all tables of a job whose rows are deduplicated, where the job says nothing else
#: (max_dedup_mb): at 22 to 24 bytes a key 10 million keys. Beyond, keys go to temporary files.
DEDUP_BYTES = int(os.environ.get("ROWFERRY_DEDUP_BYTES", 256 * MIB))
#: DuckDB's memory while the winners of ``keep = "first by"`` or ``"last by"`` are looked for; beyond, it uses files.
WINNERS_MEMORY = "192MB"
#: Winners in one row of the ledger: 32 bytes each, as text a third more; MySQL takes 16 MiB by default.
WINNERS_PER_STEP = 65_536
