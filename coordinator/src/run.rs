//! How the parts of one coordinator are put together.
