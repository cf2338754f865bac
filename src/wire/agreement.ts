// What two peers of this kind say to each other within QEMU's protocol, so that no other peer sees anything of it.
//
// The source asks by the value of a PING, before the RAM set-up. Whoever does not know the question answers as with every
// PING, by a PONG of the same value; a destination of ours that agrees answers by a PONG of another.

/** PING: may each packet have its own method, none or zstd? "MFD1". */
export const ADAPTIVE_QUESTION = 0x4d464431
/** PONG: it may. "mfd1". */
export const ADAPTIVE_ANSWER = 0x6d666431
