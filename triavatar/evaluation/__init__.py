"""Judging avatars against true views: picture metrics, FID, identity, who is whom."""
