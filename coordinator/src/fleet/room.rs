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

use super::need::{
    CELLS, DIMENSIONS, Figures, HOURLY, HOURS, Load, Need, ROWS, eights, largest, smaller,
};

/// All that a node may be filled to.
pub const FULL: u64 = 1 << 16;

/// One node. What refuses most tenants stands first, in one line of the
/// processor's cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
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
    /// By what a load is multiplied for its share in `filled`.
    parts: [Part; DIMENSIONS],
    /// The share of each cell, [`ONE`] being all.
    filled: Cells,
}

/// A share of [`FULL`] for each dimension.
pub type Shares = [u64; DIMENSIONS];

impl Room {
    /// A node that carries `load` and may be filled to `limit`.
    pub fn new(load: Load, limit: Figures, region: u16, open: bool) -> Self {
        let open = open && limit.iter().all(|limit| *limit > 0);
        let figures = load.peaks();
        let mut room = Self {
            figures,
            limit,
            peak_hours: [0; 3],
            open,
            region,
            scale: limit.map(scale),
            load,
            parts: limit.map(Part::of),
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
            let part = self.parts[ROWS[row]];
            for (filled, load) in self.filled[row * HOURS..].iter_mut().zip(day) {
                *filled = part.share(*load);
            }
        }
        for (filled, d) in self.filled[HOURLY * HOURS..].iter_mut().zip([1, 2, 5]) {
            *filled = self.parts[d].share(self.figures[d]);
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
        let scalars = self.figures[5] < self.limit[5]
            && self.figures[1].saturating_add(need.memory) <= self.limit[1]
            && self.figures[2].saturating_add(need.disk) <= self.limit[2];
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

/// One share for each cell, in the units of [`ONE`], up to twice that.
pub type Cells = [i16; CELLS];

/// All that a node may be filled to, in a cell.
pub const ONE: i16 = 1 << 14;

// What follows runs for every placement over some 75 cells. It keeps to 16 bits
// a cell, and to products of which the upper half or the sum is wanted: every
// processor has an instruction for eight of those at once.

/// The upper half of a product.
#[inline]
fn upper(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

/// `a * b / ONE`, where `a` is not negative and `b` between 0 and [`ONE`].
fn times(a: i16, b: i16) -> i16 {
    upper(a.cast_unsigned() << 1, b.cast_unsigned() << 1).cast_signed()
}

/// By how much to shift what is at most `most` up, and then down, so that it
/// takes so many bits.
fn shifts(most: u64, wanted: u32) -> (u32, u32) {
    let bits = u64::BITS - most.leading_zeros();
    (wanted.saturating_sub(bits), bits.saturating_sub(wanted))
}

/// One over a limit.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Twice the limit: what is above reads as that.
    most: u32,
    /// Brings that to 16 bits.
    shifts: (u32, u32),
    /// What one of it is then, times 2^16.
    by: u16,
}

impl Part {
    /// Of a limit of at most [`Load::MOST`].
    fn of(limit: u32) -> Self {
        let (up, down) = shifts(u64::from(limit), 15);
        // Rounded so that twice the limit stays below twice ONE.
        let by = (1 << 30) / ((limit << up >> down) + 1);
        let by = u16::try_from(by).unwrap_or(u16::MAX);
        Self { most: 2 * limit, shifts: (up, down), by }
    }

    /// A load as a share, too small by five of [`ONE`] at most.
    fn share(self, load: u32) -> i16 {
        let load = smaller(load, self.most) << self.shifts.0 >> self.shifts.1;
        upper(load as u16, self.by).cast_signed()
    }
}

/// Every bit that any hour has.
fn any_bits(carried: &[u64]) -> u64 {
    let mut any = [0; 8];
    for hours in eights(carried) {
        for (any, hour) in any.iter_mut().zip(hours) {
            *any |= hour;
        }
    }
    any.iter().fold(0, |all, any| all | any)
}

/// A day without its last `down` bits, which leaves 16.
fn narrow(carried: &[u64], down: u32, to: &mut [u16; HOURS]) {
    for (to, hours) in to.as_chunks_mut::<8>().0.iter_mut().zip(eights(carried)) {
        *to = hours.map(|hour| (hour >> down) as u16);
    }
}

/// Figures of which the largest is `most`, in the same proportions, so that it
/// is `peak`, which is below 2^15.
fn scale_to(peak: u16, most: u16, day: &[u16; HOURS], to: &mut [i16]) {
    let most = most.max(1);
    let (up, _) = shifts(u64::from(most), 16);
    let by = (u32::from(peak) << 16).div_ceil(u32::from(most << up));
    let by = u16::try_from(by).unwrap_or(u16::MAX);
    for (to, hours) in to.as_chunks_mut::<8>().0.iter_mut().zip(eights(day)) {
        *to = hours.map(|hour| upper(hour << up, by).cast_signed());
    }
}

/// In which proportions the fleet as a whole is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The cell that the fleet is shortest of.
    lead: usize,
    /// How full each cell is when the lead is full, at most [`ONE`].
    ratio: Cells,
}

impl Mix {
    /// From what all nodes carry in each cell, and one over what they may be
    /// filled to ([`Mix::part`]) in each dimension. Of an empty fleet, the
    /// slots lead alone.
    pub fn of(carried: &[u64; CELLS], parts: &[u64; DIMENSIONS]) -> Self {
        let share = |carried: u64, d: usize| carried.saturating_mul(parts[d]) >> 40;
        let (hourly, rest) = carried.split_at(HOURLY * HOURS);
        let mut days = [[0; HOURS]; HOURLY];
        let mut peaks = [(0, 0); HOURLY];
        for (row, day) in days.iter_mut().enumerate() {
            let carried = &hourly[row * HOURS..][..HOURS];
            let (_, down) = shifts(any_bits(carried), 16);
            narrow(carried, down, day);
            let most = largest(day);
            peaks[row] = (most, share(u64::from(most) << down, ROWS[row]));
        }
        let rest = [share(rest[0], 1), share(rest[1], 2), share(rest[2], 5)];
        let first = peaks.iter().map(|peak| peak.1).chain(rest).max().unwrap_or(0);
        if first == 0 {
            return Self { lead: CELLS - 1, ratio: [0; CELLS] };
        }
        let scale = (u64::from(ONE.cast_unsigned()) << 32) / first;
        let ratio_of = |share: u64| (share * scale).div_ceil(1 << 32) as u16;
        let mut ratio = [0; CELLS];
        for ((ratio, day), (most, share)) in ratio.chunks_mut(HOURS).zip(&days).zip(peaks) {
            scale_to(ratio_of(share), most, day, ratio);
        }
        for (ratio, share) in ratio[HOURLY * HOURS..].iter_mut().zip(rest) {
            *ratio = ratio_of(share).cast_signed();
        }
        let most = ratio.iter().fold(0, |most: i16, one| most.max(*one));
        let lead = ratio.iter().position(|one| *one == most).unwrap_or(0);
        Self { lead, ratio }
    }

    /// One over a sum of limits.
    pub fn part(limit: u64) -> u64 {
        (1_u64 << 60).checked_div(limit).unwrap_or(0)
    }
}

/// By what a figure is multiplied for its share of a limit, times 2^32.
pub fn scale(limit: u32) -> u64 {
    (FULL << 32).checked_div(u64::from(limit)).unwrap_or(0)
}

/// What a tenant takes in each cell beyond an average tenant's part, relative
/// to the largest of it.
#[derive(Clone, Debug)]
pub struct Wish(Cells);

/// The largest figure of a wish has so many bits.
const BITS: u32 = 11;
/// No cell is projected above this. Its third power is 13,824, and 72 hourly
/// cells of that, 2,048 times each, fit 32 bits.
const MOST: i16 = ONE + ONE / 2;

impl Wish {
    /// Of a tenant, among nodes whose largest limits have that [`scale`].
    pub fn of(need: &Need, scale: &Shares, mix: &Mix) -> Self {
        let share =
            |figure: u32, d: usize| (u64::from(figure).saturating_mul(scale[d]) >> 32).min(FULL);
        let most = need.hourly.each_ref().map(largest);
        let [cpu, connections, gps] = most.map(u32::from);
        let peaks = [share(cpu, 0), share(connections, 3), share(gps, 4)];
        let rest = [share(need.memory, 1), share(need.disk, 2), share(1, 5)];
        let first = peaks.into_iter().chain(rest).max().unwrap_or(0);
        let (_, down) = shifts(first, 15);
        let mut wants = [0; CELLS];
        for (row, wants) in wants.chunks_exact_mut(HOURS).enumerate() {
            scale_to((peaks[row] >> down) as u16, most[row], &need.hourly[row], wants);
        }
        for (wants, share) in wants[HOURLY * HOURS..].iter_mut().zip(rest) {
            *wants = (share >> down) as i16;
        }
        let lead = wants[mix.lead];
        for (wants, ratio) in wants.iter_mut().zip(&mix.ratio) {
            *wants -= times(lead, *ratio);
        }
        let any = wants.iter().fold(0, |any, wants| any | wants.unsigned_abs());
        let (_, down) = shifts(u64::from(any), BITS);
        Self(wants.map(|wants| wants >> down))
    }

    /// How badly the tenant would strain a node: its wish times the third
    /// power of what the node's cells are projected to.
    pub fn strain(&self, room: &Room, mix: &Mix) -> i64 {
        let left = (ONE - room.filled[mix.lead]).max(0);
        let mut thirds = [0_i16; CELLS];
        for ((third, filled), ratio) in thirds.iter_mut().zip(&room.filled).zip(&mix.ratio) {
            let projected = filled.saturating_add(times(left, *ratio)).min(MOST);
            let twice = projected.cast_unsigned() << 1;
            *third = upper(upper(twice, twice), projected.cast_unsigned()).cast_signed();
        }
        let product = |(a, b): (&i16, &i16)| i32::from(*a) * i32::from(*b);
        let (thirds, rest) = thirds.split_at(HOURLY * HOURS);
        let (wishes, rest_wishes) = self.0.split_at(HOURLY * HOURS);
        let hourly: i32 = thirds.iter().zip(wishes).map(product).sum();
        let rest: i64 = rest.iter().zip(rest_wishes).map(product).map(i64::from).sum();
        i64::from(hourly) + rest * HOURS as i64
    }
}

#[cfg(test)]
mod tests;
