"""Sensor models: RPC projection and localization, their files, and corrections from the adjustment."""
