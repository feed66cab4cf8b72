use super::*;

fn read_all(store: &Store, place: &mut Place) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = store.read(place) {
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    all
}

#[test]
fn every_try_reads_the_same_bytes_from_wherever_it_is() {
    for seed in 0..10_000u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut store, mut written) = (Store::default(), Vec::new());
        let mut readers: Vec<(Place, Vec<u8>)> = Vec::new();
        for _ in 0..random.usize(1..40) {
            match random.u8(0..4) {
                0 => readers.push((Place::default(), Vec::new())),
                1 if !readers.is_empty() => {
                    let index = random.usize(..readers.len());
                    let (place, seen) = &mut readers[index];
                    if let Some(piece) = store.read(place) {
                        seen.extend_from_slice(&piece);
                    }
                }
                _ => {
                    let length = if random.bool() { random.usize(1..40) } else { random.usize(1..5000) };
                    let data: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
                    store.push(&Bytes::from(data.clone()));
                    written.extend_from_slice(&data);
                    let end = store.end();
                    assert!(store.is_read(end) && store.read(&mut end.clone()).is_none());
                }
            }
        }
        assert_eq!(store.size, written.len() as u64);
        for (mut place, mut seen) in readers {
            seen.extend(read_all(&store, &mut place));
            assert_eq!(seen, written, "seed {seed}");
            assert!(store.is_read(place));
        }
    }
}

#[test]
fn small_pieces_do_not_hold_what_they_were_read_into() {
    let mut store = Store::default();
    let big = Bytes::from(vec![7; 1 << 20]);
    for at in 0..1000 {
        store.push(&big.slice(at..at + 1));
    }
    assert_eq!((store.chunks.len(), store.tail.len()), (0, 1000));
    assert!(big.try_into_mut().is_ok(), "nothing refers to it any more");
}
