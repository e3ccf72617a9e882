//! Pages of lists: `?limit=` rows, and the cursor of the next page.
//!
//! A list reads one row more than the page has: that row says whether there is a next page.

use super::query::Query;
use crate::problem::Problem;

/// How many rows a list puts on a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSize {
    /// Without `?limit=`.
    pub(crate) default: u16,
    /// At most, whatever the client asks for.
    pub(crate) max: u16,
}

/// The page that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageLimit(u16);

impl PageSize {
    /// The limit of this request.
    pub(crate) fn limit(self, query: &Query) -> Result<PageLimit, Problem> {
        query.limit(self.default, self.max).map(PageLimit)
    }
}

impl PageLimit {
    /// Rows to read: one more than the page has.
    pub(crate) const fn rows_to_read(self) -> u16 {
        self.0 + 1
    }

    /// Cuts the rows that were read to the page. Returns the cursor of its last row, if another
    /// page follows.
    pub(crate) fn cut<T, C>(self, rows: &mut Vec<T>, cursor: impl Fn(&T) -> C) -> Option<C> {
        let has_next = rows.len() > usize::from(self.0);
        rows.truncate(usize::from(self.0));
        rows.last().map(cursor).filter(|_| has_next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_with_more_behind_it_has_a_next_one() {
        let page = PageLimit(2);
        let cut = |mut rows: Vec<u8>| {
            let next = page.cut(&mut rows, |row| *row);
            (rows, next)
        };
        assert_eq!(page.rows_to_read(), 3);
        assert_eq!(cut(vec![]), (vec![], None));
        assert_eq!(cut(vec![1, 2]), (vec![1, 2], None));
        assert_eq!(cut(vec![1, 2, 3]), (vec![1, 2], Some(2)));
    }
}
