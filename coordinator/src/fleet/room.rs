//! One shared node as the search sees it: what it carries, what it may be
//! filled to, and how well a tenant would sit there.
//!
//! Shares are fixed point: [`FULL`] is all that the node may be filled to.
//!
//! **What a good place is.** A node is closed by whichever cell (a dimension,
//! at one hour where it varies) is full first; what is left in the others then
//! is stranded. So each node's load is projected to the moment when the cell
//! that the whole fleet is shortest of is full there, as if only average
//! tenants came until then. A cell that is projected above all that there is
//! will close the node early. A tenant goes where what it takes, beyond an
//! average tenant's part, meets the lowest projections, each to the third
//! power: the gradient of the sum of fourth powers. One that takes much CPU in
//! the evening goes where evenings would be left over. The nodes fill up along
//! the fleet's own mix, and strand little.

use super::need::{CELLS, DIMENSIONS, Figures, HOURLY, HOURS, Load, Need, ROWS};

/// All that a node may be filled to.
pub const FULL: u64 = 1 << 16;

/// One node. What refuses most tenants stands first, in one line of the
/// processor's cache.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Room {
    /// The fullest hour of each dimension of `load`.
    pub figures: Figures,
    /// What placement may fill it to.
    pub limit: Figures,
    /// Which hour that is, by row of [`Need::hourly`].
    peak_hours: [u8; HOURLY],
    /// False where nothing may be placed, whatever room there is.
    pub open: bool,
    /// Its region, as a position in the fleet's list.
    pub region: u16,
    /// By what a figure is multiplied for its share, times 2^32.
    scale: [u64; DIMENSIONS],
    /// What it carries.
    pub load: Load,
    /// The share of each cell, [`ONE`] being all.
    filled: Cells,
}

/// A share of [`FULL`] for each dimension.
pub type Shares = [u64; DIMENSIONS];

impl Room {
    /// A node that carries `load` and may be filled to `limit`.
    pub fn new(load: Load, limit: Figures, region: u16, open: bool) -> Self {
        let scale = limit.map(|limit| (FULL << 32).checked_div(u64::from(limit)).unwrap_or(0));
        let open = open && limit.iter().all(|limit| *limit > 0);
        let figures = load.peaks();
        let mut room = Self {
            figures,
            limit,
            peak_hours: [0; 3],
            open,
            region,
            scale,
            load,
            filled: [0; CELLS],
        };
        room.refresh();
        room
    }

    /// Must follow every change of the load.
    pub fn refresh(&mut self) {
        self.figures = self.load.peaks();
        for (row, hour) in self.peak_hours.iter_mut().enumerate() {
            let peak = self.figures[ROWS[row]];
            let at = self.load.hourly[row].iter().position(|load| *load == peak);
            *hour = at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
        }
        for (row, day) in self.load.hourly.iter().enumerate() {
            let (scale, limit) = (self.scale[ROWS[row]], self.limit[ROWS[row]]);
            for (filled, load) in self.filled[row * HOURS..].iter_mut().zip(day) {
                *filled = share_of(*load, limit, scale);
            }
        }
        for (filled, d) in self.filled[HOURLY * HOURS..].iter_mut().zip([1, 2, 5]) {
            *filled = share_of(self.figures[d], self.limit[d], self.scale[d]);
        }
    }

    /// The cell that is fullest, and its share.
    pub fn tightest_cell(&self) -> (usize, u64) {
        let (dimension, share) = self.tightest();
        let cell = match ROWS.iter().position(|row| *row == dimension) {
            Some(row) => row * HOURS + usize::from(self.peak_hours[row]),
            None => HOURLY * HOURS + [0, 0, 1, 0, 0, 2][dimension],
        };
        (cell, share)
    }

    /// Figures as shares of what the node may be filled to; what is above four
    /// times that reads as four times that.
    pub fn shares(&self, figures: &Figures) -> Shares {
        std::array::from_fn(|d| {
            let figure = u64::from(figures[d]).min(u64::from(self.limit[d]) * 4);
            (figure * self.scale[d]) >> 32
        })
    }

    /// The dimension that is fullest, and its share.
    pub fn tightest(&self) -> (usize, u64) {
        tightest(&self.shares(&self.figures))
    }

    /// The figures with one tenant more, where they stay within the limit.
    pub fn with(&self, need: &Need) -> Option<Figures> {
        // The cheap dimensions first: most nodes of a full fleet have no slot.
        let scalars = self.load.tenants < self.limit[5]
            && self.load.memory.saturating_add(need.memory) <= self.limit[1]
            && self.load.disk.saturating_add(need.disk) <= self.limit[2];
        // Then the hours that are fullest already.
        let peak = |row: usize| {
            let d = ROWS[row];
            let wanted = u32::from(need.hourly[row][usize::from(self.peak_hours[row])]);
            self.figures[d] + wanted <= self.limit[d]
        };
        if !(scalars && peak(0) && peak(1) && peak(2)) {
            return None;
        }
        let figures = self.load.peaks_with(need);
        (figures[0] <= self.limit[0] && figures[3] <= self.limit[3] && figures[4] <= self.limit[4])
            .then_some(figures)
    }
}

/// The dimension of the largest share, and that share; the first of equals.
pub fn tightest(shares: &Shares) -> (usize, u64) {
    let mut most = (0, shares[0]);
    for (d, share) in shares.iter().enumerate().skip(1) {
        if *share > most.1 {
            most = (d, *share);
        }
    }
    most
}

/// One share for each cell, in the units of [`ONE`].
pub type Cells = [u16; CELLS];

/// All that a node may be filled to, in a cell.
pub const ONE: u16 = 1 << 14;

/// A load as a share of [`ONE`]; what is above twice that reads as that.
fn share_of(load: u32, limit: u32, scale: u64) -> u16 {
    // Limits are at most `Load::MOST`, so that twice that is in range.
    let share = (u64::from(load.min(2 * limit)) * scale) >> 34;
    share.min(2 * u64::from(ONE) - 1) as u16
}

/// In which proportions the fleet as a whole is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The cell that the fleet is shortest of.
    lead: usize,
    /// How full each cell is when the lead is full.
    ratio: Cells,
}

impl Mix {
    /// From what all nodes carry in each cell, and one over what they may be
    /// filled to ([`Mix::part`]) in each dimension. Of an empty fleet, the
    /// slots lead alone.
    pub fn of(carried: &[u64; CELLS], parts: &[u64; DIMENSIONS]) -> Self {
        let mut shares = [0_u64; CELLS];
        let share = |carried: u64, d: usize| carried.saturating_mul(parts[d]) >> 40;
        for (row, d) in ROWS.into_iter().enumerate() {
            for hour in row * HOURS..(row + 1) * HOURS {
                shares[hour] = share(carried[hour], d);
            }
        }
        for (cell, d) in (HOURLY * HOURS..CELLS).zip([1, 2, 5]) {
            shares[cell] = share(carried[cell], d);
        }
        let most = shares.iter().copied().max().unwrap_or(0);
        let lead = shares.iter().position(|share| *share == most).unwrap_or(0);
        if most == 0 {
            return Self { lead: CELLS - 1, ratio: [0; CELLS] };
        }
        let scale = (u64::from(ONE) << 32) / most;
        Self { lead, ratio: shares.map(|share| ((share * scale) >> 32) as u16) }
    }

    /// One over a sum of limits.
    pub fn part(limit: u64) -> u64 {
        (1_u64 << 60).checked_div(limit).unwrap_or(0)
    }
}

/// What a tenant takes in each cell beyond an average tenant's part, relative
/// to the largest of it.
#[derive(Clone, Debug)]
pub struct Wish([i16; CELLS]);

/// The largest figure of a wish has so many bits, so that a day of products
/// fits 32.
const BITS: u32 = 11;

impl Wish {
    /// Of a tenant, among nodes whose largest limits are `largest`.
    pub fn of(need: &Need, largest: &Figures, mix: &Mix) -> Self {
        let scale = largest.map(|limit| (FULL << 32).checked_div(u64::from(limit)).unwrap_or(0));
        let share = |figure: u32, d: usize| ((u64::from(figure) * scale[d]) >> 32).min(FULL) as i32;
        let mut wants = [0_i32; CELLS];
        for (row, d) in ROWS.into_iter().enumerate() {
            for (wants, figure) in wants[row * HOURS..].iter_mut().zip(&need.hourly[row]) {
                *wants = share(u32::from(*figure), d);
            }
        }
        let rest = [share(need.memory, 1), share(need.disk, 2), share(1, 5)];
        wants[HOURLY * HOURS..].copy_from_slice(&rest);
        // At most 2^16, and a ratio has 14 bits more.
        let lead = wants[mix.lead];
        for (wants, ratio) in wants.iter_mut().zip(&mix.ratio) {
            *wants -= (lead * i32::from(*ratio)) >> 14;
        }
        let bits = u32::BITS - wants.iter().fold(0, |or, w| or | w.unsigned_abs()).leading_zeros();
        let shift = bits.saturating_sub(BITS);
        Self(wants.map(|wants| (wants >> shift) as i16))
    }

    /// How badly the tenant would strain a node: its wish times the third
    /// power of what the node's cells are projected to.
    pub fn strain(&self, room: &Room, mix: &Mix) -> i64 {
        let left = u32::from(ONE.saturating_sub(room.filled[mix.lead]));
        let one = |cell: usize| {
            let more = (left * u32::from(mix.ratio[cell])) >> 14;
            let projected = (u32::from(room.filled[cell]) + more).min(2 * u32::from(ONE) - 1);
            let third = (((projected * projected) >> 14) * projected) >> 16;
            third as i32 * i32::from(self.0[cell])
        };
        let day = |row: usize| -> i32 { (row * HOURS..(row + 1) * HOURS).map(one).sum() };
        let hourly: i64 = (0..HOURLY).map(|row| i64::from(day(row))).sum();
        let rest: i64 = (HOURLY * HOURS..CELLS).map(|cell| i64::from(one(cell))).sum();
        hourly + rest * HOURS as i64
    }
}
