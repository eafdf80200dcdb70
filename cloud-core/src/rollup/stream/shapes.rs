//! Lists of metrics as events have them, each kept once and named by a number.

use std::collections::HashMap;

use crate::rollup::counted::Metric;

/// A list of metrics, by number.
pub(super) type Shape = u32;

/// So many shapes of more than one metric are kept.
const SHAPES_MAX: usize = 4_096;

/// The known shapes. Devices of one firmware have one or a few.
#[derive(Default)]
pub(super) struct Shapes {
    lists: Vec<Box<[Metric]>>,
    numbers: HashMap<Box<[Metric]>, Shape>,
    /// The one asked for last.
    last: Shape,
    list: Vec<Metric>,
}

impl Shapes {
    /// The shape of an event. None when there are too many already: then each of its metrics is
    /// an event of its own, and those have a shape in any case.
    pub(super) fn of(&mut self, metrics: &[(Metric, f64)]) -> Option<Shape> {
        let is_last = self.lists.get(self.last as usize).is_some_and(|list| {
            list.len() == metrics.len() && list.iter().zip(metrics).all(|(a, (b, _))| a == b)
        });
        if is_last {
            return Some(self.last);
        }
        self.list.clear();
        self.list.extend(metrics.iter().map(|(metric, _)| *metric));
        self.last = match self.numbers.get(self.list.as_slice()) {
            Some(known) => *known,
            None if self.lists.len() >= SHAPES_MAX && metrics.len() > 1 => return None,
            None => {
                let number = self.lists.len() as Shape;
                self.lists.push(self.list.as_slice().into());
                self.numbers.insert(self.list.as_slice().into(), number);
                number
            }
        };
        Some(self.last)
    }

    /// Its metrics.
    pub(super) fn metrics(&self, shape: Shape) -> &[Metric] {
        self.lists.get(shape as usize).map_or(&[], |list| list)
    }
}
