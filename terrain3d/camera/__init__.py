"""Sensor models: RPC projection and localization, their readers, and corrections from the adjustment."""
