//! One request, as it arrives and as the engine holds it.

/// A request as it arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestSpec {
    /// Its number, which its random numbers are drawn by.
    pub index: u64,
    /// Tokens of the prompt, the shared beginning included.
    pub prompt_tokens: u32,
    /// Tokens that it will have when it ends by itself.
    pub output_tokens: u32,
    /// The beginning that it shares with others.
    pub prefix: Option<Prefix>,
    /// The client goes after so many tokens.
    pub abort_after: Option<u32>,
    /// The client goes if there is no first token by then, seconds after its arrival.
    pub patience_seconds: Option<f64>,
    /// The scheduler may not take it before so many seconds after its arrival: its LoRA adapter, its grammar or its keys
    /// and values are not there yet.
    pub deferred_seconds: f64,
    /// It ends at the length asked for, and not by a stop token.
    pub ends_by_length: bool,
}

/// A beginning that requests of one group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Which of them.
    pub group: u32,
    /// Its tokens.
    pub tokens: u32,
}

/// A request in the engine. Times are seconds of the simulation.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) spec: RequestSpec,
    pub(super) arrived: f64,
    pub(super) first_scheduled: Option<f64>,
    pub(super) first_token: Option<f64>,
    pub(super) last_token: f64,
    /// Tokens whose keys and values are in the cache.
    pub(super) computed: u32,
    /// Tokens that came out.
    pub(super) generated: u32,
    /// Tokens of the prompt that were in the cache when it was first scheduled.
    pub(super) cached_tokens: u32,
    pub(super) preemptions: u32,
    /// What it holds of the cache.
    pub(super) held: super::cache::Held,
    /// Tokens that admission set aside for it (SGLang, TGI).
    pub(super) reserved_tokens: u32,
    pub(super) ended: bool,
}

impl Request {
    pub(super) fn new(spec: RequestSpec, arrived: f64) -> Self {
        Self {
            spec,
            arrived,
            first_scheduled: None,
            first_token: None,
            last_token: arrived,
            computed: 0,
            generated: 0,
            cached_tokens: 0,
            preemptions: 0,
            held: super::cache::Held::default(),
            reserved_tokens: 0,
            ended: false,
        }
    }

    /// When the scheduler may take it.
    pub(super) fn ready(&self) -> f64 {
        self.arrived + self.spec.deferred_seconds
    }

    /// Prompt and output so far.
    pub(super) fn tokens(&self) -> u32 {
        self.spec.prompt_tokens + self.generated
    }

    /// Tokens to compute before the next one comes out.
    pub(super) fn missing(&self) -> u32 {
        self.tokens() - self.computed
    }

    /// The next token needs a single one computed.
    pub(super) fn decodes(&self) -> bool {
        self.generated > 0 && self.missing() == 1
    }
}

/// Number of a slot.
pub(super) type Id = u32;

/// Requests by the number of their slot. Numbers are given here, and never come from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    slots: Vec<Request>,
    free: Vec<Id>,
}

impl Slots {
    pub(super) fn add(&mut self, request: Request) -> Id {
        if let Some(id) = self.free.pop() {
            *self.get(id) = request;
            return id;
        }
        self.slots.push(request);
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, id: Id) {
        self.free.push(id);
    }

    #[allow(clippy::indexing_slicing)] // see above
    pub(super) fn get(&mut self, id: Id) -> &mut Request {
        &mut self.slots[id as usize]
    }

    /// For reading.
    #[allow(clippy::indexing_slicing)] // see above
    pub(super) fn look(&self, id: Id) -> &Request {
        &self.slots[id as usize]
    }
}
