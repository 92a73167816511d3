//! Enumerations that PostgreSQL holds as text: one macro, so that the words
//! in the schema, in JSON and in the logs can't drift apart.

/// Lets an enum of another room be read from and written to a text column by
/// its words.
macro_rules! text_column {
    ($name:ty, $what:literal, [$($variant:ident),+ $(,)?]) => {
        impl<'a> postgres_types::FromSql<'a> for $name {
            fn from_sql(
                kind: &postgres_types::Type,
                raw: &'a [u8],
            ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                let word = <&str as postgres_types::FromSql>::from_sql(kind, raw)?;
                [$(Self::$variant),+]
                    .into_iter()
                    .find(|known| known.as_str() == word)
                    .ok_or_else(|| format!(concat!($what, " {:?} is unknown"), word).into())
            }
            fn accepts(kind: &postgres_types::Type) -> bool {
                <&str as postgres_types::FromSql>::accepts(kind)
            }
        }

        impl postgres_types::ToSql for $name {
            fn to_sql(
                &self,
                kind: &postgres_types::Type,
                out: &mut postgres_types::private::BytesMut,
            ) -> Result<postgres_types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
                self.as_str().to_sql(kind, out)
            }
            fn accepts(kind: &postgres_types::Type) -> bool {
                <&str as postgres_types::ToSql>::accepts(kind)
            }
            postgres_types::to_sql_checked!();
        }
    };
}

pub(crate) use text_column;

/// Declares an enum with its words; implements `as_str`, `FromStr`,
/// `Display`, serde, the API schema and reading and writing a text column.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize,
            serde::Deserialize, utoipa::ToSchema,
        )]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in SQL, JSON and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    other => Err(format!(
                        concat!($what, " {:?} is unknown; known: {}"),
                        other,
                        Self::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>().join(", ")
                    )),
                }
            }
        }

        $crate::store::text::text_column!($name, $what, [$($variant),+]);
    };
}

pub(crate) use text_enum;
