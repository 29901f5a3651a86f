"""Evidence -> verdict: fuse what the networks say, weigh what the file declares, decide or abstain."""
