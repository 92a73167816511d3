//! The arithmetic in few bits, against the same in many.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

#[test]
fn a_share_in_sixteen_bits_is_hardly_less_than_the_exact_one() {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..50_000_u32 {
        let limit = rng.random_range(1..=Load::MOST >> (round % 30));
        let load = rng.random_range(0..=(3 * u64::from(limit)).min(Load::MOST.into())) as u32;
        let exact = i64::from(load.min(2 * limit)) * i64::from(ONE) / i64::from(limit);
        let share = i64::from(Part::of(limit).share(load));
        assert!((exact - 5..=exact).contains(&share), "{load} of {limit}: {share} for {exact}");
    }
    assert_eq!(Part::of(0).share(1), 0);
}

/// What [`Wish::strain`] does in few bits, in many.
fn plain(wish: &Wish, room: &Room, mix: &Mix) -> i64 {
    let left = (i64::from(ONE) - i64::from(room.filled[mix.lead])).max(0);
    let one = |cell: usize| {
        let more = (left * i64::from(mix.ratio[cell])) >> 14;
        let projected = (i64::from(room.filled[cell]) + more).min(MOST.into());
        let third = (((projected * projected) >> 14) * projected) >> 16;
        third * i64::from(wish.0[cell]) * if cell < HOURLY * HOURS { 1 } else { HOURS as i64 }
    };
    (0..CELLS).map(one).sum()
}

#[test]
fn strain_in_few_bits_is_the_plain_sum_however_full_and_large() {
    let limit = [12_000, 100_000, 700_000, 7_500, 37_500, 150];
    let mut rng = StdRng::seed_from_u64(2);
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for round in 0..400 {
        let fullest = [1, 100, 400, 60_000][round % 4];
        let mut load = Load::default();
        for _ in 0..rng.random_range(0..200) {
            let mut need = Need { memory: 600, disk: 4000, ..Need::default() };
            let hours = need.hourly.as_flattened_mut();
            hours.iter_mut().for_each(|hour| *hour = rng.random_range(0..fullest));
            load.add(&need);
        }
        let room = Room::new(load, limit, 0, true);
        let carried: [u64; CELLS] = std::array::from_fn(|_| rng.random_range(0..1 << 40));
        let parts = std::array::from_fn(|_| Mix::part(rng.random_range(1..1 << 40)));
        let mix = Mix::of(&carried, &parts);
        assert_eq!(mix.ratio.iter().max(), Some(&ONE));
        assert_eq!(mix.ratio[mix.lead], ONE);
        let need =
            Need { hourly: [[rng.random_range(0..fullest); HOURS]; HOURLY], memory: 600, disk: 0 };
        let wish = Wish::of(&need, &limit.map(scale), &mix);
        let strain = wish.strain(&room, &mix);
        assert_eq!(strain, plain(&wish, &room, &mix), "round {round}");
        (least, most) = (least.min(strain), most.max(strain));
    }
    // The largest that 32 bits must hold came up, or nearly.
    assert!(most > 1 << 30 && least < 0, "{least} to {most}");
}
