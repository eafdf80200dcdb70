-- The loss ledger: which numbers of each gateway were seen, what the gateways say, what is missing.
-- Epochs and numbers as in an event's provenance; times of statuses are the bus's append times, in
-- microseconds since the Unix epoch; ranges are half-open.

-- What publications saw, each in its own transaction; folded into ledger_chunk soon after.
CREATE TABLE ledger_seen (
    seen_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway text   NOT NULL,
    epoch   bigint NOT NULL,
    -- Of 65,536 numbers.
    chunk   bigint NOT NULL,
    kind    text   NOT NULL CHECK (kind IN ('raw', 'dead', 'duplicate')),
    -- A roaring bitmap of the numbers, counted from the chunk's beginning.
    bits    bytea  NOT NULL
);
CREATE INDEX ledger_seen_chunk ON ledger_seen (gateway, epoch, chunk);

CREATE TABLE ledger_chunk (
    gateway        text    NOT NULL,
    epoch          bigint  NOT NULL,
    chunk          bigint  NOT NULL,
    stored         integer NOT NULL,
    duplicates     integer NOT NULL,
    dead           integer NOT NULL,
    -- None when every number was seen: then raw is what is not dead.
    raw_bits       bytea,
    dead_bits      bytea,
    duplicate_bits bytea,
    PRIMARY KEY (gateway, epoch, chunk)
);

-- The last status of each gateway.
CREATE TABLE ledger_gateway (
    gateway            text   PRIMARY KEY,
    status_at          bigint NOT NULL,
    sent_at            bigint NOT NULL,
    epoch              bigint NOT NULL,
    spool_bytes        bigint NOT NULL,
    spool_bytes_max    bigint NOT NULL,
    pending            bigint NOT NULL,
    oldest_received_at bigint,
    damaged_more       bigint NOT NULL,
    -- JSON: rejections that were not kept, by device and reason.
    rejected_not_kept  text   NOT NULL
);

CREATE TABLE ledger_epoch (
    gateway     text    NOT NULL,
    epoch       bigint  NOT NULL,
    -- What statuses said, the greatest of each.
    next        bigint  NOT NULL DEFAULT 0,
    retired     bigint  NOT NULL DEFAULT 0,
    not_kept    bigint  NOT NULL DEFAULT 0,
    -- Whether any status listed it; whether the last one that did said that nothing more comes.
    is_declared boolean NOT NULL DEFAULT false,
    is_complete boolean NOT NULL DEFAULT false,
    -- So many statuses since did not list it.
    unlisted    integer NOT NULL DEFAULT 0,
    -- Everything below was seen, is damaged, or is in ledger_missing.
    judged      bigint  NOT NULL DEFAULT 0,
    -- What was seen: the number after the greatest, and sums over the chunks.
    seen_next   bigint  NOT NULL DEFAULT 0,
    stored      bigint  NOT NULL DEFAULT 0,
    duplicates  bigint  NOT NULL DEFAULT 0,
    dead        bigint  NOT NULL DEFAULT 0,
    -- Damaged and not seen, when last looked at.
    damaged            bigint NOT NULL DEFAULT 0,
    damaged_checked_at timestamptz,
    PRIMARY KEY (gateway, epoch)
);

CREATE TABLE ledger_damaged (
    gateway    text        NOT NULL,
    epoch      bigint      NOT NULL,
    from_seq   bigint      NOT NULL,
    to_seq     bigint      NOT NULL CHECK (to_seq > from_seq),
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway, epoch, from_seq, to_seq)
);

CREATE TABLE ledger_missing (
    missing_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway     text        NOT NULL,
    epoch       bigint      NOT NULL,
    from_seq    bigint      NOT NULL,
    to_seq      bigint      NOT NULL CHECK (to_seq > from_seq),
    -- All of the range, but where very many holes were put into one.
    numbers     bigint      NOT NULL,
    noticed_at  timestamptz NOT NULL DEFAULT now(),
    checked_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE INDEX ledger_missing_open ON ledger_missing (gateway, epoch, from_seq)
    WHERE resolved_at IS NULL;

-- How each epoch stood over time, at most one row a minute: constant from from_at to until_at.
CREATE TABLE ledger_history (
    gateway  text   NOT NULL,
    epoch    bigint NOT NULL,
    minute   bigint NOT NULL,
    from_at  bigint NOT NULL,
    until_at bigint NOT NULL,
    next     bigint NOT NULL,
    not_kept bigint NOT NULL,
    PRIMARY KEY (gateway, epoch, minute)
);
CREATE INDEX ledger_history_until ON ledger_history (until_at);
