_base_ = '../nat/nat_pico_cifar10.py'
model = dict(name='dinat_pico')
