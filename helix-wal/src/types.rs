//! The quantities of the log, one type each, so that an index cannot be passed for an offset.

use std::fmt;

/// No index, term, offset, LSN or segment number is ever as high; a checksum that fits does not make a higher one credible. So sums
/// of two of them can't overflow.
pub(crate) const QUANTITY_END: u64 = 1 << 62;
/// No segment file is ever as long (1 TiB).
pub(crate) const POSITION_END: u64 = 1 << 40;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The bare number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The following value; saturates.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The preceding value; saturates at zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

quantity!(
    /// A log within the log. Never reused once deleted.
    GroupId
);
quantity!(
    /// A place in a group's log; the first entry of a group has index 1.
    Index
);
quantity!(
    /// The epoch in which an entry was made; never decreases along a group's log.
    Term
);
quantity!(
    /// What consumers count: an entry covers zero or more consecutive offsets.
    Offset
);
quantity!(
    /// Log sequence number: the order in which records were first written, over all groups. The highest wins.
    Lsn
);
quantity!(
    /// The sequence number of a segment file; never reused, it seeds the checksums of the segment's frames.
    SegmentId
);
