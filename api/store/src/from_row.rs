//! Maps rows of Postgres to structs.
//!
//! These macros replace the derive of sqlx: its macros compile sqlx, its Postgres driver and tokio
//! a second time for the build itself.

/// Implements [`sqlx::FromRow`]. Each field is read from the column of its name: a `json` field
/// from a JSON column, a `nullable_json` field from a JSON column that may be NULL, a `bytes` field
/// from `bytea` by `From<Vec<u8>>`.
macro_rules! from_row {
    ($type:ident { $($field:ident $(: $form:ident)?),* $(,)? }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $type {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self {
                    $($field: $crate::from_row::column!(row, $field $(, $form)?)),*
                })
            }
        }
    };
}

/// Reads one column in one of the forms of [`from_row`].
macro_rules! column {
    ($row:ident, $field:ident) => {
        $row.try_get(stringify!($field))?
    };
    ($row:ident, $field:ident, json) => {{
        let sqlx::types::Json(value) = $row.try_get(stringify!($field))?;
        value
    }};
    ($row:ident, $field:ident, nullable_json) => {{
        let value: Option<sqlx::types::Json<Option<_>>> = $row.try_get(stringify!($field))?;
        value.and_then(|sqlx::types::Json(value)| value)
    }};
    ($row:ident, $field:ident, bytes) => {{
        let bytes: Vec<u8> = $row.try_get(stringify!($field))?;
        bytes.into()
    }};
}

pub(crate) use {column, from_row};
