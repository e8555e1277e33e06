//! The steps of an injection, for whoever wants to follow or to interrupt it.

/// A step that has just been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The code lies in the target; nothing runs it.
    CodeWritten,
    /// A thread is traced; it was not stopped.
    Seized,
    /// It was asked to stop.
    Interrupted,
    /// It is stopped.
    Stopped,
    /// Its registers are known.
    RegistersRead,
    /// Its signal mask is known.
    MaskRead,
    /// What the code needs to bring it back is in the target.
    ContextWritten,
    /// Its next instruction is the code's first.
    RegistersSet,
    /// Signals wait.
    MaskSet,
    /// It runs.
    Resumed,
    /// The new thread exists; the borrowed one is stopped.
    AtMarker,
    /// It would return by itself as the kernel decides.
    ReturnArmed,
    /// Its signal mask is its own.
    MaskRestored,
    /// Its registers are its own.
    RegistersRestored,
    /// It is not traced any more.
    Detached,
    /// The new thread knows that the borrowed one has left its memory.
    Left,
    /// The new thread answers.
    Answered,
    /// The ring's memory exists, in the target and here.
    RingMade,
    /// The memory of the image exists, in the target and here.
    ImageMade,
    /// The memory of the CUPTI library exists, in the target and here.
    CuptiMade,
    /// The image is filled.
    ImageFilled,
    /// A file with the image exists in the target's file system.
    FileMade,
    /// The image is loaded.
    Loaded,
    /// The file is removed.
    FileRemoved,
    /// The image's descriptor is closed.
    ImageClosed,
    /// The agent's arguments are in the target.
    ArgumentsWritten,
    /// The agent was called.
    Started,
}

/// Who is told of the steps.
#[derive(Default)]
pub(crate) struct Observer<'a>(pub(crate) Option<&'a mut (dyn FnMut(Step) + Send)>);

impl Observer<'_> {
    pub(crate) fn step(&mut self, step: Step) {
        if let Some(observe) = &mut self.0 {
            observe(step);
        }
    }
}
