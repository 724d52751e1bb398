//! The shape of a random history: how often each event and each rare case comes. Generates nothing.

/// The tunable likelihoods of a history. Fields named `p_…` are probabilities from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The number of events.
    pub events: usize,
    /// The number of tenants. All have conversations and people of the same names.
    pub tenants: usize,
    /// The number of conversations per tenant.
    pub conversations: usize,
    /// The number of people per tenant, without crowds.
    pub people: usize,
    /// The retention that jumps exceed, milliseconds. The subject should have the same limit.
    pub retention_ms: u64,
    /// How often each type of event comes, relative to the others.
    pub weights: Weights,

    /// A conversation is a direct chat, mostly of two, sometimes of three.
    pub p_direct: f64,
    /// A group has 65 to 200 members rather than a handful.
    pub p_mid_group: f64,
    /// A group has 640 to 700 members, most of them no observers: more than 512 in an audience.
    pub p_large_group: f64,
    /// Instead of these two: ranges of the first size of a group.
    pub crowds: &'static [(u64, u64)],
    /// Joins, recipients and erasures come from the group's crowd, and sometimes many of it come or
    /// go at once.
    pub p_crowd: f64,
    /// A conversation begins without a roster, so that sends in it are dead letters.
    pub p_no_roster: f64,
    /// A person joins as an observer.
    pub p_observer: f64,
    /// A change of members gives a member the other role.
    pub p_role_flip: f64,
    /// A change of members lets a member leave and join at once.
    pub p_bounce: f64,
    /// A send names its recipients itself, sometimes twice, sometimes none, sometimes the sender.
    pub p_recipients: f64,
    /// A send asks for no receipt.
    pub p_not_requested: f64,
    /// A send repeats an id of its conversation; a read is repeated.
    pub p_duplicate: f64,
    /// An event names a message that comes later.
    pub p_early: f64,
    /// A reader is any person, not one of the roster.
    pub p_stranger: f64,
    /// A read is hidden.
    pub p_hidden: f64,
    /// A read says when it was, sometimes before the send, sometimes in the future.
    pub p_read_at: f64,
    /// `sent_at_ms` is out of order, rarely far in the past or the future.
    pub p_skew: f64,
    /// A record's timestamp is behind the one before.
    pub p_late_record: f64,
    /// Time jumps by the retention, to the millisecond or past it.
    pub p_jump: f64,
    /// Offsets leave a gap.
    pub p_gap: f64,
}

/// How often each type of event comes, relative to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// `conversation.configured`, beyond the first of each conversation.
    pub configured: u32,
    /// `members.changed`, beyond the first of each conversation.
    pub members: u32,
    /// `message.sent`
    pub sent: u32,
    /// `message.read`
    pub read: u32,
    /// Many members reading the latest message one after the other, each in an event.
    pub storm: u32,
    /// `conversation.read` by message.
    pub mark_by_message: u32,
    /// `conversation.read` by time.
    pub mark_by_time: u32,
    /// `message.recalled`
    pub recalled: u32,
    /// `policy.changed`
    pub policy: u32,
    /// `user.erased`
    pub erased: u32,
    /// Many reads of messages that do not come, one after the other, in one conversation.
    pub flood: u32,
}

impl Shape {
    /// Returns a shape of well-behaved producers: all events in time, none late, doubled or absurd.
    pub fn quiet() -> Self {
        Self {
            events: 200,
            tenants: 1,
            conversations: 3,
            people: 8,
            retention_ms: 30 * 24 * 3_600_000,
            weights: Weights {
                configured: 0,
                members: 6,
                sent: 25,
                read: 45,
                storm: 1,
                mark_by_message: 12,
                mark_by_time: 5,
                recalled: 2,
                policy: 1,
                erased: 1,
                flood: 0,
            },
            p_direct: 0.3,
            p_mid_group: 0.05,
            p_large_group: 0.0,
            crowds: &[],
            p_crowd: 0.0,
            p_no_roster: 0.0,
            p_observer: 0.1,
            p_role_flip: 0.1,
            p_bounce: 0.0,
            p_recipients: 0.1,
            p_not_requested: 0.1,
            p_duplicate: 0.0,
            p_early: 0.0,
            p_stranger: 0.02,
            p_hidden: 0.1,
            p_read_at: 0.8,
            p_skew: 0.0,
            p_late_record: 0.0,
            p_jump: 0.0,
            p_gap: 0.0,
        }
    }

    /// Returns a shape with everything that the contract allows, often and at once.
    pub fn wild() -> Self {
        Self {
            events: 300,
            tenants: 3,
            conversations: 3,
            people: 10,
            weights: Weights {
                configured: 2,
                members: 14,
                sent: 24,
                read: 36,
                storm: 1,
                mark_by_message: 10,
                mark_by_time: 7,
                recalled: 3,
                policy: 2,
                erased: 2,
                flood: 1,
            },
            p_direct: 0.35,
            p_mid_group: 0.1,
            p_large_group: 0.01,
            p_no_roster: 0.15,
            p_observer: 0.25,
            p_role_flip: 0.25,
            p_bounce: 0.15,
            p_recipients: 0.2,
            p_not_requested: 0.15,
            p_duplicate: 0.12,
            p_early: 0.2,
            p_stranger: 0.2,
            p_hidden: 0.25,
            p_read_at: 0.6,
            p_skew: 0.3,
            p_late_record: 0.15,
            p_jump: 0.01,
            p_gap: 0.2,
            ..Self::quiet()
        }
    }

    /// Returns a shape of groups at the sizes where people, bits, indexes and departures begin a
    /// next page. Any member comes, goes, reads and is erased.
    pub fn crowds() -> Self {
        let wild = Self::wild();
        Self {
            events: 160,
            tenants: 1,
            conversations: 2,
            weights: Weights { members: 20, storm: 2, erased: 6, ..wild.weights },
            p_direct: 0.0,
            crowds: &[(62, 66), (62, 66), (126, 130), (191, 195), (254, 258), (510, 514), (1_022, 1_030)],
            p_crowd: 0.7,
            p_no_roster: 0.0,
            p_jump: 0.0,
            ..wild
        }
    }

    /// Returns a shape of conversations, members, sends and reads in order only.
    pub fn spine() -> Self {
        Self {
            events: 120,
            conversations: 2,
            people: 6,
            weights: Weights {
                configured: 0,
                members: 6,
                sent: 30,
                read: 64,
                storm: 0,
                mark_by_message: 0,
                mark_by_time: 0,
                recalled: 0,
                policy: 0,
                erased: 0,
                flood: 0,
            },
            p_mid_group: 0.0,
            p_observer: 0.0,
            p_role_flip: 0.0,
            p_recipients: 0.0,
            p_not_requested: 0.0,
            p_stranger: 0.0,
            p_hidden: 0.0,
            ..Self::quiet()
        }
    }
}
