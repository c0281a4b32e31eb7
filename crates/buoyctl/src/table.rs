//! Tables as calicoctl prints them: plain columns for resources, boxes for IPAM.

/// A table of text: a header and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. A cell too few is an empty one.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .map(|cell| cell.replace(|c: char| c.is_control(), " "))
            .collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }

    /// Columns, three spaces apart, without lines.
    pub(crate) fn columns(&self) -> String {
        let widths = self.widths();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(cells.join("   ").trim_end());
            text.push('\n');
        }
        text
    }

    /// A box of `+`, `-` and `|`: header centred, numbers to the right.
    pub(crate) fn boxed(&self) -> String {
        let widths = self.widths();
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        let line = format!("+{}+\n", dashes.join("+"));
        let between = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let header = self
            .header
            .iter()
            .zip(&widths)
            .map(|(name, &width)| format!("{name:^width$}"));
        let mut text = format!("{line}{}{line}", between(header.collect()));
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| {
                if cell.parse::<f64>().is_ok() {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            text.push_str(&between(cells.collect()));
        }
        text.push_str(&line);
        text
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                cells
                    .chain([self.header[column].chars().count()])
                    .max()
                    .unwrap_or_default()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_three_spaces_apart() {
        let mut table = Table::new(&["NAME", "CIDR"]);
        table.row(["a-longer-one".to_owned(), "10.0.0.0/8".to_owned()]);
        table.row(["p".to_owned()]);
        table.row(["two\nlines".to_owned(), "\u{1b}[31m".to_owned()]);
        assert_eq!(
            table.columns(),
            "NAME           CIDR\na-longer-one   10.0.0.0/8\np\ntwo lines       [31m\n"
        );
    }

    #[test]
    fn a_box_is_as_calicoctl_draws_it() {
        let mut table = Table::new(&[
            "GROUPING",
            "CIDR",
            "IPS TOTAL",
            "IPS IN USE",
            "IPS RESERVED",
            "IPS FREE",
        ]);
        table.row(["IP Pool", "10.65.0.0/16", "65536", "5 (0%)", "0", "65531 (100%)"].map(str::to_owned));
        assert_eq!(
            table.boxed(),
            "\
+----------+--------------+-----------+------------+--------------+--------------+
| GROUPING |     CIDR     | IPS TOTAL | IPS IN USE | IPS RESERVED |   IPS FREE   |
+----------+--------------+-----------+------------+--------------+--------------+
| IP Pool  | 10.65.0.0/16 |     65536 | 5 (0%)     |            0 | 65531 (100%) |
+----------+--------------+-----------+------------+--------------+--------------+
"
        );
    }
}
