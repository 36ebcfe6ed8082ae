//! Tests of look-ups.
