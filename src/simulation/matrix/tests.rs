//! A share of the matrix in every run of the tests.

use super::{Matrix, Share, Tally, VERDICTS};

/// One case of so many: a prime, so that no pattern of eight bits or sixty-four bytes is left out.
const EVERY: u64 = 101;

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_to_the_disk() {
    let matrix = Matrix::prepare().unwrap();
    let mut all = Tally::default();
    for job in 0..matrix.jobs() {
        all.add(matrix.run(job, Share { first: job as u64, every: EVERY }));
    }
    assert_eq!(all.failures().collect::<Vec<_>>(), [""; 0], "`make matrix` shows all of them");
    for verdict in VERDICTS {
        assert!(all.of(verdict.0) > 30, "too little happens to mean anything: {}", verdict.1);
    }
}
