//! Runs the threads of the feed's ring and queue in every order that the memory model allows.

#[path = "../../src/feed/primitive.rs"]
pub mod primitive;
#[path = "../../src/feed/queue.rs"]
pub mod queue;
#[path = "../../src/feed/ring.rs"]
pub mod ring;

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::queue::PrefetchQueue;
    use super::ring::{PopError, PushError, Ring};

    /// Threads are stopped at most so often in the midst of their work: loom's advice for more than
    /// two threads, with which no known fault needs more.
    fn explore(preemptions: usize, work: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(work);
    }

    #[test]
    fn two_pushes_never_take_one_slot() {
        explore(3, || {
            let ring = Arc::new(Ring::new(2));
            let other = ring.clone();
            let pushing = thread::spawn(move || other.push(1).unwrap());
            ring.push(2).unwrap();
            pushing.join().unwrap();
            let mut items = [ring.pop().unwrap(), ring.pop().unwrap()];
            items.sort_unstable();
            assert_eq!(items, [1, 2]);
            assert_eq!(ring.pop(), Err(PopError::Empty));
        });
    }

    #[test]
    fn a_slot_is_used_again_only_after_it_was_read() {
        explore(3, || {
            let ring = Arc::new(Ring::new(1));
            let other = ring.clone();
            ring.push(Box::new(1)).unwrap();
            let popping = thread::spawn(move || other.pop());
            let second = ring.push(Box::new(2));
            let first = popping.join().unwrap();
            assert_eq!(first, Ok(Box::new(1)));
            match second {
                Ok(()) => assert_eq!(ring.pop(), Ok(Box::new(2))),
                Err(PushError::Full(back)) => assert_eq!(*back, 2),
                Err(PushError::Closed(_)) => panic!("nobody closed it"),
            }
        });
    }

    #[test]
    fn two_pops_never_take_one_item() {
        explore(3, || {
            let ring = Arc::new(Ring::new(2));
            ring.push(1).unwrap();
            let other = ring.clone();
            let popping = thread::spawn(move || other.pop());
            let mine = ring.pop();
            let theirs = popping.join().unwrap();
            assert!(mine.is_ok() != theirs.is_ok(), "{mine:?} {theirs:?}");
        });
    }

    #[test]
    fn what_went_in_before_the_close_comes_out_before_the_end() {
        explore(3, || {
            let ring = Arc::new(Ring::new(2));
            let other = ring.clone();
            let pushing = thread::spawn(move || other.push(7).is_ok());
            ring.close();
            let mut popped = None;
            let end = loop {
                match ring.pop() {
                    Ok(item) => popped = Some(item),
                    Err(PopError::Ended) => break pushing.join().unwrap(),
                    // A push has its place and is not done.
                    Err(PopError::Empty) => thread::yield_now(),
                }
            };
            assert_eq!(popped, end.then_some(7));
        });
    }

    #[test]
    fn a_full_queue_wakes_its_producer() {
        explore(2, || {
            let queue = Arc::new(PrefetchQueue::new(1));
            let other = queue.clone();
            let pushing = thread::spawn(move || (0..2).for_each(|n| other.push(n).unwrap()));
            assert_eq!((queue.pop(), queue.pop()), (Some(0), Some(1)));
            pushing.join().unwrap();
        });
    }

    #[test]
    fn of_two_consumers_one_sees_that_half_is_free() {
        explore(2, || {
            let queue = Arc::new(PrefetchQueue::new(2));
            (0..2).for_each(|n| queue.push(n).unwrap());
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || queue.pop())
                })
                .collect();
            queue.push(2).unwrap();
            consumers.into_iter().for_each(|c| assert!(c.join().unwrap().is_some()));
            assert_eq!(queue.pop(), Some(2));
        });
    }

    #[test]
    fn a_close_wakes_a_sleeping_consumer() {
        explore(3, || {
            let queue = Arc::new(PrefetchQueue::<u8>::new(1));
            let other = queue.clone();
            let popping = thread::spawn(move || other.pop());
            queue.close();
            assert_eq!(popping.join().unwrap(), None);
        });
    }

    #[test]
    fn a_close_wakes_a_sleeping_producer_and_gives_the_item_back() {
        explore(3, || {
            let queue = Arc::new(PrefetchQueue::new(1));
            queue.push(1).unwrap();
            let other = queue.clone();
            let pushing = thread::spawn(move || other.push(2));
            queue.close();
            assert_eq!(pushing.join().unwrap(), Err(2));
            assert_eq!((queue.pop(), queue.pop()), (Some(1), None));
        });
    }

    #[test]
    fn two_consumers_share_what_one_producer_makes() {
        explore(2, || {
            let queue = Arc::new(PrefetchQueue::new(1));
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || queue.pop())
                })
                .collect();
            queue.push(5).unwrap();
            queue.close();
            let mut popped: Vec<_> = consumers.into_iter().map(|c| c.join().unwrap()).collect();
            popped.sort_unstable();
            assert_eq!(popped, [None, Some(5)]);
        });
    }
}
