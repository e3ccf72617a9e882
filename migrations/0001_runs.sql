-- Runs, their variations, and what is known of their producers.

CREATE TABLE runs (
    id                  uuid PRIMARY KEY,               -- UUIDv7, minted by the gateway
    name                text NOT NULL,
    labels              jsonb NOT NULL DEFAULT '{}',
    status              text NOT NULL DEFAULT 'pending'
                        CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'cancelled', 'lost')),
    variations          smallint NOT NULL DEFAULT 1 CHECK (variations > 0),
    created_by          text NOT NULL,
    idempotency_key     text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    ended_at            timestamptz,                    -- every variation has reported its end
    sealed_at           timestamptz,                    -- ... and what is stored is what was published
    -- The watermark: id of the last event that is stored. Moves in the transaction that stores it.
    epoch               bigint NOT NULL DEFAULT 0,
    seq                 bigint NOT NULL DEFAULT 0,
    -- Which event of which producer that was: how a Redis that went back in time is recognised.
    watermark_producer  uuid,
    watermark_producer_seq bigint,
    events              bigint NOT NULL DEFAULT 0,
    bytes               bigint NOT NULL DEFAULT 0,
    CONSTRAINT runs_idempotency UNIQUE (created_by, idempotency_key)
) WITH (fillfactor = 70);                               -- the watermark moves often: room for HOT updates

CREATE INDEX runs_by_status ON runs (status, id);

CREATE TABLE variations (
    run_id      uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    variation   smallint NOT NULL,
    status      text NOT NULL DEFAULT 'pending',
    exit_code   integer,
    signal      integer,
    message     text,
    started_at  timestamptz,
    ended_at    timestamptz,
    -- How the seal of its last producer compares with what is stored; null until there is one.
    missing     bigint,                                 -- events that the producer counted and we do not have
    intact      boolean,                                -- count, bytes and checksum agree
    PRIMARY KEY (run_id, variation)
) WITH (fillfactor = 70);

CREATE TABLE producers (
    run_id      uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    producer    uuid NOT NULL,
    seq         bigint NOT NULL,                        -- highest stored seq of this producer
    events      bigint NOT NULL,
    bytes       bigint NOT NULL,
    checksum    bigint NOT NULL,                        -- CRC-32C over its lines, in order
    PRIMARY KEY (run_id, producer)
) WITH (fillfactor = 70);
