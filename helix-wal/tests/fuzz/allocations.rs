//! Counts what the current thread allocates, so that a length from outside can't ask for absurd amounts unnoticed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATED_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // At the end of a thread the counter is gone, and nobody asks any more.
    let _ = ALLOCATED_BYTES.try_with(|allocated| allocated.set(allocated.get().saturating_add(bytes)));
}

#[allow(unsafe_code)] // a global allocator cannot be written without
// SAFETY: everything is passed on unchanged to the system allocator, which keeps the contract; counting does not
// allocate, because the counter is a `Cell` that is initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and says how many bytes it allocated in all, whether or not it gave them back.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED_BYTES.get();
    let result = work();
    (result, ALLOCATED_BYTES.get() - before)
}

/// Runs `work`, which must not allocate more than `limit` bytes in all.
#[track_caller]
pub(crate) fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let (result, allocated) = counted(work);
    assert!(allocated <= limit, "{allocated} bytes were allocated, more than {limit}");
    result
}
